"""Pure rules of an audit: codes, verdicts, findings, requests."""
