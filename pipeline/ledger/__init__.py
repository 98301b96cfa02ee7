"""The ledger: one signed log a partition, one leaf a consumed offset."""
