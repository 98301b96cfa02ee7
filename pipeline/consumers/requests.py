"""The messages that report the outcome of a run or advisory request.

Runs and rows of the v1 store differ in what their event holds; see `Steps` for what calls these.
"""

from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from pipeline.broker.sending.batches import Message
from pipeline.consumers.engine.outbox import Outbox, Request, Resolved
from pipeline.core.advisories.event import advisory_event, advisory_event_headers
from pipeline.core.advisories.outcome import AdvisoryOutcome
from pipeline.core.record import RecordSource
from pipeline.core.runs.event import ReportedOutcome, run_event_headers


class RunOutcome(ReportedOutcome, Resolved, Protocol):
    """What must be known of an outcome to count it and to make its event."""


AnyRunOutcome = TypeVar("AnyRunOutcome", bound=RunOutcome)


def run_messages(
    outbox: Outbox,
    event_of: Callable[[AnyRunOutcome, RecordSource], bytes],
    request: Request,
    outcome: AnyRunOutcome,
) -> Iterator[Message]:
    """Yield the event of a run request, and its dead letter where it has one."""
    headers = run_event_headers(outcome, request.source, request.timestamp_ms)
    value = event_of(outcome, request.source)
    yield outbox.event(request, outcome.run_id, value, headers)
    if outcome.code is not None:
        yield outbox.dead_letter(request, outcome.code, outcome.message)


def advisory_messages(
    outbox: Outbox, request: Request, outcome: AdvisoryOutcome
) -> Iterator[Message]:
    """Yield the event of an advisory request, and its dead letter where it has one."""
    headers = advisory_event_headers(outcome, request.source, request.timestamp_ms)
    value = advisory_event(outcome, request.source)
    yield outbox.event(request, outcome.run_id, value, headers)
    if outcome.code is not None:
        yield outbox.dead_letter(request, outcome.code, outcome.message)
