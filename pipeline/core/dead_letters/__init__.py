"""Dead letters: how they are written, read, selected and brought back."""
