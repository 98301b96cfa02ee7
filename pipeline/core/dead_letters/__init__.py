"""Dead letters: written, read, selected and redriven."""
