"""The ledger: one signed log a partition, one leaf a consumed offset.

Where the disk fails, what reads one file raises OSError; logs and keys raise StoreError.
"""
