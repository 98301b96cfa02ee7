"""The index of a store on one disk: an SQLite file."""
