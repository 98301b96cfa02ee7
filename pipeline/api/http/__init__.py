"""HTTP itself: the listening socket, limits, tokens, bodies and headers."""
