"""The v1 mode: the legacy runs.json served and written in an emergency."""
