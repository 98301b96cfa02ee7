"""The audit: the store compared with its ledger. It reports and repairs nothing."""
