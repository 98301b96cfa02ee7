"""The index in SQLite: tables, transactions, listings."""
