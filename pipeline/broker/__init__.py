"""Kafka from the outside: the local broker, connections to any broker, and its topics."""
