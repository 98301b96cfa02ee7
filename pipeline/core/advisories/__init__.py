"""Pure rules of advisories."""
