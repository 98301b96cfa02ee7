"""What a setting of a topic that is another means: which promise it breaks, what a worker does."""

import pytest

from pipeline.broker.admin.topic_promises import RULES, Consequence, broken_promise
from pipeline.broker.admin.topics import TopicDifference
from pipeline.topics import TopicNames, topic_table

TOPICS = TopicNames("shop")
REQUESTS, EVENTS, LETTERS = TOPICS.run_requests, TOPICS.run_events, TOPICS.run_dead_letters


@pytest.mark.parametrize(
    ("topic", "setting", "expected", "found", "consequence"),
    [
        (REQUESTS, "topic", "12 partitions", None, Consequence.REFUSED),
        (REQUESTS, "cleanup.policy", "delete", "compact", Consequence.STOPS),
        (TOPICS.legacy_runs, "cleanup.policy", "delete", "compact,delete", Consequence.STOPS),
        (EVENTS, "cleanup.policy", "delete", "compact", Consequence.REPORTED),
        (REQUESTS, "partitions", "12", "5", Consequence.REFUSED),
        (EVENTS, "partitions", "12", "5", Consequence.REFUSED),
        (REQUESTS, "partitions", "12", "24", Consequence.REPORTED),
        (EVENTS, "partitions", "12", "24", Consequence.LOGGED),
        (REQUESTS, "message.timestamp.type", "LogAppendTime", "CreateTime", Consequence.REPORTED),
        (REQUESTS, "max.message.bytes", "5242880", "1048588", Consequence.REFUSED),
        (LETTERS, "max.message.bytes", "6291456", "5242880", Consequence.REFUSED),
        (REQUESTS, "max.message.bytes", "5242880", "6291456", Consequence.LOGGED),
        (REQUESTS, "retention.ms", "-1", "86400000", Consequence.REPORTED),
        (REQUESTS, "retention.ms", "86400000", "-1", Consequence.LOGGED),
        (LETTERS, "retention.ms", "31536000000", "86400000", Consequence.REPORTED),
        (EVENTS, "retention.ms", "2592000000", "86400000", Consequence.LOGGED),
        (REQUESTS, "retention.bytes", "-1", "1073741824", Consequence.REPORTED),
        (REQUESTS, "min.insync.replicas", "2", "1", Consequence.REPORTED),
        (REQUESTS, "min.insync.replicas", "2", "3", Consequence.LOGGED),
        (REQUESTS, "replication.factor", "3", "2", Consequence.REPORTED),
        (EVENTS, "replication.factor", "3", "2", Consequence.LOGGED),
    ],
)
def test_what_a_worker_does(
    topic: str, setting: str, expected: str, found: str | None, consequence: Consequence
) -> None:
    broken = broken_promise(TopicDifference(topic, setting, expected, found), TOPICS)
    assert broken.consequence is consequence
    assert topic in broken.sentence
    assert broken.sentence.endswith(".")
    assert found is None or f"{setting}={expected}, found {found}: " in broken.sentence


def test_every_rule_is_about_something_that_is_compared() -> None:
    compared = {"partitions", "replication.factor"}
    for topic in topic_table(replication=3):
        compared |= set(topic.configs)
    assert {rule.setting for rule in RULES} <= compared
