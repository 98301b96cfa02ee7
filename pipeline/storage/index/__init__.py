"""The index: tables, transactions, listings, over a database that another room opens."""
