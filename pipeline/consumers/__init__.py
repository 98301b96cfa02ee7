"""The workers: raw records from Kafka, judged one by one, events back to Kafka."""
