"""Old dates in tars: made, read back, proved by the ledger, and put back."""
