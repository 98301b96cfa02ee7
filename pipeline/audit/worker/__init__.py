"""The audit as a service: requests from Kafka, a schedule, one audit at a time."""
