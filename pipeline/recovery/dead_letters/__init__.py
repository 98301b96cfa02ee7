"""Dead letters read from their topics and redriven."""
