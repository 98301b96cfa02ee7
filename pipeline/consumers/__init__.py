"""Kafka in, Kafka out: batches of raw records, judged one by one."""
