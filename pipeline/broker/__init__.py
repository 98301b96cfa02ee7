"""Clients of Kafka: publishing, reading, administration, the local broker."""
