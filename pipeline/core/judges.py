"""Which judge says what a record is, by its topic: the same for consumer, replay and rebuild."""

from collections.abc import Callable

from pipeline.core.dead_letters.carried_record import ReadContent
from pipeline.core.runs.verdict import JudgedRun, Rejected, judge_run_record
from pipeline.legacy.record import judge_legacy_record
from pipeline.topics import TopicNames

RunJudge = Callable[[ReadContent | None, ReadContent | None], JudgedRun | Rejected]
"""Takes key and value of a record."""


def run_judges(topics: TopicNames) -> dict[str, RunJudge]:
    """Return the judge of each topic whose records make runs."""
    return {
        topics.run_requests: judge_run_record,
        topics.legacy_runs: judge_legacy_record,
    }
