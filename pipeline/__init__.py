"""RMOS Runs: run requests on Kafka become immutable artifacts on disk."""
