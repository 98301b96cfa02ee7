"""The topics: names, numbers of partitions and settings that the pipeline relies on."""

from dataclasses import dataclass, field

DAY_MS = 86_400_000
KEEP_FOREVER_MS = -1

REQUEST_PARTITIONS = 12
"""Fixed for ever: the partition of a run_id must never change. Where somebody adds partitions all
the same, what we publish goes by this number as before."""

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
_SOURCE = {"message.timestamp.type": "LogAppendTime", "retention.bytes": "-1"}


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic: full name, partitions, and the settings that differ from the broker's."""

    name: str
    partitions: int
    configs: dict[str, str] = field(default_factory=dict)
    summary: str = ""


@dataclass(frozen=True, slots=True)
class TopicNames:
    """Full names under one prefix.

    Attributes:
        prefix: First part of every name, `rmos` unless a setting says otherwise.
    """

    prefix: str = "rmos"

    @property
    def run_requests(self) -> str:
        """Run requests: the source of every artifact."""
        return f"{self.prefix}.runs.requests"

    @property
    def run_events(self) -> str:
        """What became of each run request."""
        return f"{self.prefix}.runs.events"

    @property
    def run_dead_letters(self) -> str:
        """Run requests that can never succeed."""
        return f"{self.prefix}.runs.dead-letters"

    @property
    def persist_group(self) -> str:
        """Consumer group of the persist worker."""
        return f"{self.prefix}.persist"

    @property
    def persist_v1_group(self) -> str:
        """Consumer group of the persist worker while it stores in the v1 store."""
        return f"{self.prefix}.persist-v1"

    @property
    def legacy_runs(self) -> str:
        """Rows of older stores: the source of the artifacts of history."""
        return f"{self.prefix}.runs.legacy"

    @property
    def migrate_group(self) -> str:
        """Consumer group of `rmos migrate run`."""
        return f"{self.prefix}.migrate"

    @property
    def advisory_requests(self) -> str:
        """Advisory requests: the source of every link."""
        return f"{self.prefix}.advisories.requests"

    @property
    def advisory_events(self) -> str:
        """What became of each advisory request."""
        return f"{self.prefix}.advisories.events"

    @property
    def advisory_dead_letters(self) -> str:
        """Advisory requests that can never succeed, and those whose run has not come."""
        return f"{self.prefix}.advisories.dead-letters"

    @property
    def advise_group(self) -> str:
        """Consumer group of the advise worker."""
        return f"{self.prefix}.advise"

    @property
    def audit_requests(self) -> str:
        """What somebody asks to be audited."""
        return f"{self.prefix}.audits.requests"

    @property
    def audit_findings(self) -> str:
        """What audits find, as they find it."""
        return f"{self.prefix}.audits.findings"

    @property
    def audit_reports(self) -> str:
        """The report of each audit, once it is done."""
        return f"{self.prefix}.audits.reports"

    @property
    def audit_dead_letters(self) -> str:
        """Audit requests that can never succeed."""
        return f"{self.prefix}.audits.dead-letters"

    @property
    def audit_group(self) -> str:
        """Consumer group of the audit worker."""
        return f"{self.prefix}.audit"


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

    def topic(
        name: str,
        partitions: int,
        retention_ms: int,
        summary: str,
        *,
        limit_bytes: int = BROKER_MESSAGE_LIMIT_BYTES,
        broker_time: bool = False,
    ) -> Topic:
        configs = {
            "cleanup.policy": "delete",
            "retention.ms": str(retention_ms),
            "max.message.bytes": str(limit_bytes),
            **(_SOURCE if broker_time else {}),
            **quorum,
        }
        return Topic(f"{prefix}.{name}", partitions, configs, summary)

    def dead_letters(area: str) -> Topic:
        return topic(
            f"{area}.dead-letters",
            3,
            365 * DAY_MS,
            f"{area} requests that can never succeed, untouched, with the reason in headers",
            limit_bytes=DEAD_LETTER_MESSAGE_LIMIT_BYTES,
        )

    requests = [
        topic(
            f"{area}.requests", REQUEST_PARTITIONS, request_retention_ms, summary, broker_time=True
        )
        for area, summary in (
            ("runs", "run requests from CAM systems, key run_id"),
            ("advisories", "advisory requests from explainer engines, key run_id"),
        )
    ]
    events = [
        topic(f"{area}.events", REQUEST_PARTITIONS, 30 * DAY_MS, f"what became of {area} requests")
        for area in ("runs", "advisories")
    ]
    audits = [
        topic(f"audits.{name}", 3, 90 * DAY_MS, f"audit {name}")
        for name in ("requests", "findings", "reports")
    ]
    return (
        *requests,
        *events,
        topic(
            "runs.legacy",
            3,
            KEEP_FOREVER_MS,
            "rows of an older store, read by migration and replay only",
            broker_time=True,
        ),
        topic("redrives", 1, KEEP_FOREVER_MS, "which dead letters were brought back"),
        *audits,
        dead_letters("runs"),
        dead_letters("advisories"),
        dead_letters("audits"),
    )


def former_topics(prefix: str) -> tuple[str, ...]:
    """Return the topics of an older version that a broker may still have."""
    return tuple(f"{prefix}.{name}" for name in FORMER_TOPICS)


AREAS = ("runs", "advisories", "audits")
"""What has requests and dead letters of its own."""


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
        f"{prefix}.audit": (f"{prefix}.audits.requests",),
        names.migrate_group: (names.legacy_runs,),
        names.persist_v1_group: (names.run_requests,),
    }


def store_groups(prefix: str) -> tuple[str, ...]:
    """Return the consumer groups whose workers write artifacts and links into a store."""
    names = TopicNames(prefix)
    return (names.persist_group, names.migrate_group, names.advise_group)
