"""Topics and groups at the broker: created, compared, described."""
