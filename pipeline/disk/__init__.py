"""How bytes become durable, and whose folder it is.

Where the disk fails, functions on files raise OSError and those on a whole store raise StoreError.
"""
