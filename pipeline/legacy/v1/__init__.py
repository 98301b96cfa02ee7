"""The store of v1: one JSON file, read and written as v1 did."""
