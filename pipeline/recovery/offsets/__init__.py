"""A consumer group moved, and moved back."""
