"""The request topics: how the records of each are judged, which store keeps what they make.

What reads topics again goes through this table in its order: runs come before advisories, so that
links find their runs.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipeline.consumers.judging import Judge
from pipeline.core.advisory import judge_advisory_record
from pipeline.core.judges import run_judges
from pipeline.storage.advisory_store import AdvisoryStore
from pipeline.storage.batch_store import BatchStore
from pipeline.storage.ledger import Ledger
from pipeline.storage.run_store import RunStore
from pipeline.topics import TopicNames


class OpenStore(Protocol):
    """Opens a store on disk, as the class of a store does."""

    def __call__(self, root: Path, *, ledger: Ledger | None) -> BatchStore[Any, Any]:
        """Open the store at `root`."""


@dataclass(frozen=True, slots=True)
class RequestTopic:
    """One request topic.

    Attributes:
        name: Full name.
        groups: The consumer groups that write what its records make; the first one reads it.
        judge: Says what a record is.
        open_store: Opens what keeps it.
    """

    name: str
    groups: tuple[str, ...]
    judge: Judge[Any]
    open_store: OpenStore


def request_topics(topics: TopicNames) -> list[RequestTopic]:
    """Return every request topic, in the order in which they are replayed."""
    judges = run_judges(topics)
    runs = (
        (topics.run_requests, topics.persist_group),
        (topics.legacy_runs, topics.migrate_group),
    )
    return [
        *(RequestTopic(name, (group,), judges[name], RunStore) for name, group in runs),
        RequestTopic(
            topics.advisory_requests,
            (topics.advise_group, topics.advise_retry_group),
            judge_advisory_record,
            AdvisoryStore,
        ),
    ]
