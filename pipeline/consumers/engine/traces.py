"""Where a worker reports its batches to a collector of traces: nowhere, unless one is asked for."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from aiokafka import ConsumerRecord

from pipeline.consumers.engine.outbox import CountedOutcome

ReportOutcomes = Callable[[Sequence[CountedOutcome]], None]


class Traces:
    """Reports nothing, and costs nothing; `SpanTraces` is the one that reports."""

    def batch(
        self, group: str, records: Sequence[ConsumerRecord]
    ) -> AbstractContextManager[ReportOutcomes]:
        """Span the way of a batch; what is yielded takes the outcomes of its records at its end."""
        del group, records
        return nullcontext(_ignore)

    def stage(self, name: str) -> AbstractContextManager[object]:
        """Span one stage of the batch that this task takes."""
        del name
        return nullcontext()

    def exemplar(self) -> dict[str, str] | None:
        """Return the labels that name the trace of the batch that this task takes."""
        return None


def _ignore(_outcomes: Sequence[CountedOutcome]) -> None:
    """Report nothing."""
