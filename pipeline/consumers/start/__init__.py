"""What must hold before a worker consumes its first record."""
