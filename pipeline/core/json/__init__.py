"""JSON: strict parsing, canonical bytes, differences of values."""
