"""The promise behind each setting of a topic, and the action of a worker where it differs.

A worker goes on unless that would make things worse.

| consequence | at start | while running |
|---|---|---|
| STOPS | refused, exit 6 | the worker stops, exit 6: the next stored run could be wrong for ever |
| REFUSED | refused, exit 6 | not ready: a topic may refuse its messages |
| REPORTED | not ready | not ready: a promise is broken, and waiting would not mend it |
| LOGGED | logged | logged |
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from pipeline.broker.admin.topics import TopicDifference
from pipeline.topics import TopicNames, dead_letter_topics


class Consequence(Enum):
    """What a worker does."""

    STOPS = "stops"
    REFUSED = "refused"
    REPORTED = "reported"
    LOGGED = "logged"


@dataclass(frozen=True, slots=True)
class BrokenPromise:
    """A difference, its meaning, and the action of a worker.

    Attributes:
        sentence: What is another, which promise that breaks, and what to do.
    """

    difference: TopicDifference
    consequence: Consequence
    sentence: str


@dataclass(frozen=True, slots=True)
class Rule:
    """What a setting means for some topics, where it differs in a certain way.

    Attributes:
        when: One of `WHEN`.
        topics: One of `TOPICS`.
        promise: What is broken, and what to do, as the rest of a sentence.
    """

    setting: str
    when: str
    topics: str
    consequence: Consequence
    promise: str


def broken_promise(difference: TopicDifference, topics: TopicNames) -> BrokenPromise:
    """Return what `difference` means: the first rule that fits."""
    name = difference.topic
    if difference.found is None:
        sentence = f"The topic {name} is missing: run rmos topics apply."
        return BrokenPromise(difference, Consequence.REFUSED, sentence)
    for rule in RULES:
        fits = rule.setting == difference.setting and WHEN[rule.when](difference)
        if fits and TOPICS[rule.topics](name, topics):
            return BrokenPromise(difference, rule.consequence, _sentence(difference, rule.promise))
    return BrokenPromise(difference, Consequence.LOGGED, _sentence(difference, _NO_PROMISE))


def _sentence(difference: TopicDifference, promise: str) -> str:
    return (
        f"Expected the topic {difference.topic} to have {difference.setting}="
        f"{difference.expected}, found {difference.found}: {promise}."
    )


def _number(text: str | None) -> float:
    """Return a limit as a number; -1 stands for none."""
    number = int(text) if text else 0
    return float("inf") if number < 0 else number


WHEN: dict[str, Callable[[TopicDifference], bool]] = {
    "less": lambda each: _number(each.found) < _number(each.expected),
    "more": lambda each: _number(each.found) > _number(each.expected),
    "compact": lambda each: "compact" in (each.found or ""),
    "another": lambda _each: True,
}
"""How a setting differs."""

TOPICS: dict[str, Callable[[str, TopicNames], bool]] = {
    "request topics": lambda name, topics: (
        name in {topics.run_requests, topics.advisory_requests, topics.legacy_runs}
    ),
    "dead letters": lambda name, topics: name in dead_letter_topics(topics.prefix),
    "all": lambda _name, _topics: True,
}

_NO_PROMISE = (
    "no promise rests on it, but rmos topics apply creates the topic with the expected value"
)

RULES = (
    Rule(
        "cleanup.policy",
        "compact",
        "request topics",
        Consequence.STOPS,
        "compaction removes the first request of a run_id and keeps a later one, so a request "
        "that must be refused could win; set it back, look for what is gone with rmos replay "
        "plan, and start again",
    ),
    Rule(
        "cleanup.policy",
        "compact",
        "all",
        Consequence.REPORTED,
        "compaction removes events and reports before their retention is over; set it back",
    ),
    Rule(
        "partitions",
        "less",
        "all",
        Consequence.REFUSED,
        "the partition of a run_id must never change; delete the topic and run rmos topics apply "
        "if it holds nothing yet",
    ),
    Rule(
        "partitions",
        "more",
        "request topics",
        Consequence.REPORTED,
        "a run_id may be in two partitions now, and no worker consumes the added ones; the "
        "records in them wait and are not lost: when the others are consumed, set "
        "RMOS_REQUEST_PARTITIONS to the number that was found, and start all workers again",
    ),
    Rule(
        "message.timestamp.type",
        "another",
        "request topics",
        Consequence.REPORTED,
        "the ledger and audits go by the broker's time of a record, and producers can choose it "
        "now; set it back",
    ),
    Rule(
        "max.message.bytes",
        "less",
        "all",
        Consequence.REFUSED,
        "a message that it refuses would hold up its partition; raise its max.message.bytes",
    ),
    Rule(
        "retention.ms",
        "less",
        "request topics",
        Consequence.REPORTED,
        "the broker removes requests before their time: those not consumed by then are lost, "
        "and nothing older can be restored; set it back, or set RMOS_REQUEST_RETENTION_MS",
    ),
    Rule(
        "retention.bytes",
        "less",
        "request topics",
        Consequence.REPORTED,
        "the broker removes requests as soon as there are many: those not consumed by then are "
        "lost, and nothing older can be restored; set it back",
    ),
    Rule(
        "min.insync.replicas",
        "less",
        "request topics",
        Consequence.REPORTED,
        "a request may be acknowledged by one broker alone and be lost with it; set it back",
    ),
    Rule(
        "replication.factor",
        "less",
        "request topics",
        Consequence.REPORTED,
        "an acknowledged request may be lost with one broker; add replicas, or set "
        "RMOS_REPLICATION",
    ),
    Rule(
        "retention.ms",
        "less",
        "dead letters",
        Consequence.REPORTED,
        "dead letters are removed before they can be redriven; set it back",
    ),
)
