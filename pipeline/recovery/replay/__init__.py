"""Replay: the topics read again, to prove or restore a store, or to forward a range."""
