"""Replay: the topics read again, to prove a store, to restore it, or to send a range elsewhere."""
