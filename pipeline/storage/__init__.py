"""The store: write-once files, and the index that decides which record was first.

Where the disk or the index fails, all of it raises StoreError: nothing may be acknowledged.
"""
