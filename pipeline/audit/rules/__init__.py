"""Pure rules of an audit: codes, verdicts, findings, what a request may ask for."""
