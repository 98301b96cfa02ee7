"""The disk: write-once files, the index that decides who was first, and the store's identity."""
