"""The request topics: how the records of each are judged, which store keeps what they make.

What reads topics again goes through this table in its order: runs come before advisories, so that
links find their runs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.consumers.engine.judging import Judge
from pipeline.core.advisories.verdict import judge_advisory_record
from pipeline.core.runs.verdict import judge_run_record
from pipeline.legacy.record import judge_legacy_record
from pipeline.storage.advisory_store import AdvisoryStore, plan_advisories
from pipeline.storage.batch_plan import BatchPlan, JudgedRecord
from pipeline.storage.batch_store import BatchStore
from pipeline.storage.index.queries import KnownRows
from pipeline.storage.run_store import RunStore, plan_runs
from pipeline.topics import TopicNames


@dataclass(frozen=True, slots=True)
class RequestTopic:
    """One request topic.

    Attributes:
        name: Full name.
        group: The consumer group that reads it, and writes what its records make.
        judge: Says what a record is.
        open_store: What keeps it, opened by the store's folder and its ledger.
        plan: Says what the store would do with records, from its rows alone.
    """

    name: str
    group: str
    judge: Judge[Any]
    open_store: type[BatchStore[Any, Any]]
    plan: Callable[[Sequence[JudgedRecord[Any]], KnownRows], BatchPlan[Any, Any]]


def request_topics(topics: TopicNames) -> list[RequestTopic]:
    """Return every request topic, in the order in which they are replayed."""
    return [
        RequestTopic(
            topics.run_requests, topics.persist_group, judge_run_record, RunStore, plan_runs
        ),
        RequestTopic(
            topics.legacy_runs, topics.migrate_group, judge_legacy_record, RunStore, plan_runs
        ),
        RequestTopic(
            topics.advisory_requests,
            topics.advise_group,
            judge_advisory_record,
            AdvisoryStore,
            plan_advisories,
        ),
    ]
