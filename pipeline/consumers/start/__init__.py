"""The checks before a worker consumes its first record."""
