"""The index made again from files, ledger and topics."""
