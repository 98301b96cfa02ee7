"""The topics of the pipeline: names, numbers of partitions, settings."""

from dataclasses import dataclass, field

DAY_MS = 86_400_000
KEEP_FOREVER_MS = -1

REQUEST_PARTITIONS = 12
"""Fixed for ever: the partition of a run_id must never change. Where partitions are added all
the same, what we publish goes by this number as before."""

AREAS = ("runs", "advisories", "audits")
"""What has requests and dead letters of its own."""

FORMER_TOPICS = tuple(f"advisories.retry-{step}" for step in range(1, 5))
"""Names, without the prefix, of topics of an older version: no longer made, read or written."""

REQUEST_VALUE_LIMIT_BYTES = 4_194_304
"""Largest value of a run or advisory request."""

BROKER_MESSAGE_LIMIT_BYTES = 5 * 1024 * 1024
"""`max.message.bytes` of every topic but the dead letters."""

DEAD_LETTER_MESSAGE_LIMIT_BYTES = 6 * 1024 * 1024
"""`max.message.bytes` of dead letters: the record and the headers that say why."""


# Of topics whose records are the source of what is stored. Kept for long they may be large, and a
# broker that removes by size would take them before their time.
_SOURCES = ("runs.requests", "advisories.requests", "runs.legacy")
_SOURCE = {"message.timestamp.type": "LogAppendTime", "retention.bytes": "-1"}


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic: full name, partitions, and the settings that differ from the broker's."""

    name: str
    partitions: int
    configs: dict[str, str] = field(default_factory=dict)
    summary: str = ""


class _Name:
    """A full name: the part that follows the prefix, whatever the prefix is."""

    def __init__(self, rest: str) -> None:
        self._rest = rest

    def __get__(self, names: "TopicNames", _kind: type) -> str:
        return f"{names.prefix}.{self._rest}"


@dataclass(frozen=True, slots=True)
class TopicNames:
    """Full names under one prefix.

    Attributes:
        prefix: First part of every name, `rmos` unless a setting says otherwise.
    """

    prefix: str = "rmos"

    run_requests = _Name("runs.requests")
    """Run requests: the source of every artifact."""

    run_events = _Name("runs.events")
    """What became of each run request."""

    run_dead_letters = _Name("runs.dead-letters")
    """Run requests that can never succeed."""

    persist_group = _Name("persist")
    """Consumer group of the persist worker."""

    persist_v1_group = _Name("persist-v1")
    """Consumer group of the persist worker while it stores in the v1 store."""

    legacy_runs = _Name("runs.legacy")
    """Rows of older stores: the source of the artifacts of history."""

    migrate_group = _Name("migrate")
    """Consumer group of `rmos migrate run`."""

    advisory_requests = _Name("advisories.requests")
    """Advisory requests: the source of every link."""

    advisory_events = _Name("advisories.events")
    """What became of each advisory request."""

    advisory_dead_letters = _Name("advisories.dead-letters")
    """Advisory requests that can never succeed, and those whose run has not come."""

    advise_group = _Name("advise")
    """Consumer group of the advise worker."""

    audit_requests = _Name("audits.requests")
    """Requests for audits."""

    audit_findings = _Name("audits.findings")
    """What audits find, as they find it."""

    audit_reports = _Name("audits.reports")
    """The report of each audit, once it is done."""

    audit_dead_letters = _Name("audits.dead-letters")
    """Audit requests that can never succeed."""

    audit_group = _Name("audit")
    """Consumer group of the audit worker."""


def topic_table(
    prefix: str = "rmos", *, request_retention_ms: int = KEEP_FOREVER_MS, replication: int = 1
) -> tuple[Topic, ...]:
    """Return every topic of the pipeline under `prefix`.

    Args:
        prefix: First part of every name.
        request_retention_ms: How long requests are kept, in ms; -1 is for ever. A shorter time
            gives up restoring what is older than the log's start.
        replication: Replication factor; with three or more, `min.insync.replicas` is 2.
    """
    quorum = {"min.insync.replicas": "2"} if replication >= 3 else {}  # noqa: PLR2004

    def topic(name: str, partitions: int, retention_ms: int, summary: str) -> Topic:
        is_letter, is_source = name.endswith(".dead-letters"), name in _SOURCES
        limit_bytes = DEAD_LETTER_MESSAGE_LIMIT_BYTES if is_letter else BROKER_MESSAGE_LIMIT_BYTES
        configs = {
            "cleanup.policy": "delete",
            "retention.ms": str(retention_ms),
            "max.message.bytes": str(limit_bytes),
            **(_SOURCE if is_source else {}),
            **quorum,
        }
        return Topic(f"{prefix}.{name}", partitions, configs, summary)

    requests, events = (REQUEST_PARTITIONS, request_retention_ms), (REQUEST_PARTITIONS, 30 * DAY_MS)
    audits, letters = (3, 90 * DAY_MS), (3, 365 * DAY_MS)
    of_history = "rows of an older store, read by migration and replay only"
    of_engines = "advisory requests from explainer engines, key run_id"
    refused = "requests that can never succeed, untouched, with the reason in headers"
    return (
        topic("runs.requests", *requests, "run requests from CAM systems, key run_id"),
        topic("advisories.requests", *requests, of_engines),
        topic("runs.events", *events, "what became of runs requests"),
        topic("advisories.events", *events, "what became of advisories requests"),
        topic("runs.legacy", 3, KEEP_FOREVER_MS, of_history),
        topic("redrives", 1, KEEP_FOREVER_MS, "which dead letters were brought back"),
        topic("audits.requests", *audits, "audit requests"),
        topic("audits.findings", *audits, "audit findings"),
        topic("audits.reports", *audits, "audit reports"),
        *(topic(f"{area}.dead-letters", *letters, f"{area} {refused}") for area in AREAS),
    )


def former_topics(prefix: str) -> tuple[str, ...]:
    """Return the topics of an older version that a broker may still have."""
    return tuple(f"{prefix}.{name}" for name in FORMER_TOPICS)


def request_topics(prefix: str) -> tuple[str, ...]:
    """Return the topics that a dead letter may be sent back to."""
    return (*(f"{prefix}.{area}.requests" for area in AREAS), TopicNames(prefix).legacy_runs)


def dead_letter_topics(prefix: str) -> tuple[str, ...]:
    """Return the topics of dead letters."""
    return tuple(f"{prefix}.{area}.dead-letters" for area in AREAS)


def redrive_topic(prefix: str) -> str:
    """Return the topic that remembers which dead letters were brought back."""
    return f"{prefix}.redrives"


def consumer_groups(prefix: str) -> dict[str, tuple[str, ...]]:
    """Return every consumer group of ours, and the topics that it reads."""
    names = TopicNames(prefix)
    return {
        names.persist_group: (names.run_requests,),
        names.advise_group: (names.advisory_requests,),
        names.audit_group: (names.audit_requests,),
        names.migrate_group: (names.legacy_runs,),
        names.persist_v1_group: (names.run_requests,),
    }


def store_groups(prefix: str) -> tuple[str, ...]:
    """Return the consumer groups whose workers write artifacts and links into a store."""
    names = TopicNames(prefix)
    return (names.persist_group, names.migrate_group, names.advise_group)
