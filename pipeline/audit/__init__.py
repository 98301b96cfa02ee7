"""The audit: it compares the store with its ledger, reports, and repairs nothing."""
