"""Every kind of event as its consumers get it: key, headers and value, kept byte for byte.

Consumers of years ago read them. Write the file anew, where a new kind of event is added, by

    python -m tests.contracts.golden_events

and read the difference line by line.
"""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import structs

from pipeline.audit.rules.finding import (
    FINDING_EVENT_TYPE,
    REPORT_EVENT_TYPE,
    audit_event_headers,
)
from pipeline.broker.sending.batches import Message
from pipeline.consumers.engine.outbox import Headers, Outbox, Request
from pipeline.core.advisories.outcome import (
    advisory_event,
    advisory_event_headers,
    resolve_advisory,
    run_not_found,
    stored_advisory,
)
from pipeline.core.advisories.verdict import JudgedAdvisory, judge_advisory_record
from pipeline.core.json.canonical import canonical_json
from pipeline.core.record import RecordId, RecordSource
from pipeline.core.runs.event import run_event, run_event_headers
from pipeline.core.runs.outcome import Outcome, resolve_rejected, resolve_run, stored_run
from pipeline.core.runs.verdict import Rejected
from tests.builders import advisory_request, judged, record, red_request, run_request
from tests.schemas.examples import AUDIT_REPORT, finding

FILE = Path(__file__).with_name("golden_events.json")
TIMESTAMP_MS = 1_766_066_602_123
TRACE = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")

_OUTBOX = Outbox("rmos.persist", "rmos.events", "rmos.dead-letters")


def _source(topic: str, offset: int) -> RecordSource:
    return RecordSource(1, RecordId(topic, 3, offset))


def _request(source: RecordSource, *headers: tuple[str, bytes]) -> Request:
    return Request(source, TIMESTAMP_MS, None, None, headers)


def events() -> dict[str, Message]:
    """Return each kind of event, by a name."""
    return dict([*_run_events(), *_advisory_events(), *_audit_events()])


def _run_events() -> Iterator[tuple[str, Message]]:
    run, red = judged(run_request()), judged(red_request())
    first, later = (_source("rmos.runs.requests", offset) for offset in (41, 42))
    stored = stored_run(run, first)
    outcomes: dict[str, tuple[Outcome, RecordSource]] = {
        "run persisted": (resolve_run(run, stored, first, intact=True), first),
        "run persisted and blocked": (
            resolve_run(red, stored_run(red, later), later, intact=True),
            later,
        ),
        "run duplicate, blobs missing": (
            structs.replace(
                resolve_run(run, stored, later, intact=True), missing_attachments=("a" * 64,)
            ),
            later,
        ),
        "run conflict": (
            resolve_run(judged(run_request(notes="other")), stored, later, intact=True),
            later,
        ),
        "run corrupt": (resolve_run(run, stored, later, intact=False), later),
        "run rejected": (
            resolve_rejected(Rejected("INVALID_JSON", "Expected one object, found a list.")),
            later,
        ),
    }
    for name, (outcome, source) in outcomes.items():
        sent = _OUTBOX.messages(run_event, run_event_headers, _request(source, TRACE), outcome)
        yield name, next(sent)


def _advisory_events() -> Iterator[tuple[str, Message]]:
    advisory = judge_advisory_record(*record(advisory_request(title="Größe «prüfen»")))
    other = judge_advisory_record(*record(advisory_request(kind="note")))
    assert isinstance(advisory, JudgedAdvisory)
    assert isinstance(other, JudgedAdvisory)
    first, later = (_source("rmos.advisories.requests", offset) for offset in (7, 8))
    waits = stored_advisory(advisory, first, None)
    linked = stored_advisory(advisory, first, "runs/2025-12-18/run_1_advisory_a.json")
    waiting = resolve_advisory(advisory, waits, first, intact=True)
    outcomes = {
        "advisory waiting": (waiting, first),
        "advisory linked": (resolve_advisory(advisory, linked, first, intact=True), first),
        "advisory duplicate": (resolve_advisory(advisory, linked, later, intact=True), later),
        "advisory conflict": (resolve_advisory(other, linked, later, intact=True), later),
        "advisory whose run did not come": (run_not_found(waiting), first),
    }
    make = partial(_OUTBOX.messages, advisory_event, advisory_event_headers)
    for name, (outcome, source) in outcomes.items():
        yield name, next(make(_request(source), outcome))


def _audit_events() -> Iterator[tuple[str, Message]]:
    request = _request(_source("rmos.audits.requests", 1))
    sent = {
        "audit finding": (FINDING_EVENT_TYPE, finding()),
        "audit report": (REPORT_EVENT_TYPE, AUDIT_REPORT),
    }
    for name, (kind, document) in sent.items():
        value = canonical_json(document)
        headers: Headers = audit_event_headers(
            kind, document["audit_id"], value, request.timestamp_ms
        )
        yield name, _OUTBOX.event(request, document["audit_id"], value, headers)


def _written(message: Message) -> dict[str, Any]:
    """Return an event as the file holds it: all of it is UTF-8."""
    assert message.value is not None
    return {
        "key": None if message.key is None else message.key.decode(),
        "headers": {name: (value or b"").decode() for name, value in message.headers},
        "value": message.value.decode(),
    }


def file_text() -> str:
    kept = {name: _written(message) for name, message in events().items()}
    return json.dumps(kept, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(file_text(), encoding="utf-8")
