"""Durable bytes on disk, and the identity of their store.

Where the disk fails, functions on files raise OSError and those on a whole store raise StoreError.
"""
