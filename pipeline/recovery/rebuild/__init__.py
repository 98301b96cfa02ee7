"""The index and the ledger rebuilt from files, ledger and topics."""
