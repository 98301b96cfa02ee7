"""Topics and groups as the broker has them: created, compared, described."""
