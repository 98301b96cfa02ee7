"""Topics and groups at the broker: created, compared, described.

Each function that is given settings raises BrokerError where no broker answers or it refuses, and
TopicsError, which is one, where a topic that it is asked about is missing.
"""
