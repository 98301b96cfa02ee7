"""The event that reports the outcome of a run request, and its CloudEvents headers.

CloudEvents 1.0, Kafka protocol binding, binary content mode: attributes are headers `ce_*`.
"""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Protocol

from pipeline.core.json.canonical import canonical_json_of_integers
from pipeline.core.record import RecordSource, Resolved
from pipeline.core.runs.outcome import Outcome, StoredRun
from schemas.run_event import RUN_EVENT_VERSION
from schemas.timestamps import format_timestamp

Headers = list[tuple[str, bytes]]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST_MS = 253_402_300_799_999
"""The last millisecond of the year 9999, the last that `datetime` knows."""
EVENT_SOURCE = "/rmos/persist"
_SPECVERSION = ("ce_specversion", b"1.0")
_CONTENT_TYPE = ("content-type", b"application/json")


@lru_cache(maxsize=1)  # The headers of an event ask for it, then its value.
def event_id(source: RecordSource) -> str:
    """Return the SHA-256 of `epoch/topic/partition/offset`: equal for every delivery."""
    return hashlib.sha256(f"{source.epoch}/{source.id}".encode()).hexdigest()


class ReportedOutcome(Resolved, Protocol):
    """What an event reports of an outcome, whatever store holds the run."""

    @property
    def may_cut(self) -> bool:
        """Whether a machine may cut by what the record asked for."""


def run_event(outcome: Outcome, source: RecordSource) -> bytes:
    """Return the value of the event: canonical JSON of a `RunEvent`."""
    fields = {} if outcome.run is None else _fields_of(outcome.run)
    if outcome.missing_attachments:
        fields["missing_attachments"] = list(outcome.missing_attachments)
    return event_with(outcome, source, fields)


def _fields_of(run: StoredRun) -> dict[str, Any]:
    fields = {
        "status": run.status,
        "risk_level": run.risk_level,
        "hashes": run.hashes,
        "artifact_sha256": run.artifact_sha256,
        "artifact_path": run.artifact_path,
        "size_bytes": run.size_bytes,
    }
    if run.block_reason is not None:
        fields["block_reason"] = run.block_reason
    if run.program is not None:
        fields["gcode_sha256"] = run.program.sha256
        fields["gcode_known_by"] = run.program.known_by
    return fields


def event_with(outcome: ReportedOutcome, source: RecordSource, fields: Mapping[str, Any]) -> bytes:
    """Return the value of the event of `outcome`, with `fields` of the stored run."""
    event: dict[str, Any] = {
        "schema_version": RUN_EVENT_VERSION,
        "event_id": event_id(source),
        "outcome": outcome.kind,
        "may_cut": outcome.may_cut,
        "source": event_source(source),
        **fields,
    }
    if outcome.run_id is not None:
        event["run_id"] = outcome.run_id
    if outcome.code is not None:
        event["error"] = {"code": outcome.code, "message": outcome.message}
    return canonical_json_of_integers(event)


def run_event_headers(outcome: ReportedOutcome, source: RecordSource, timestamp_ms: int) -> Headers:
    """Return the headers of the event of a record with broker time `timestamp_ms`."""
    return cloud_event_headers(
        event_id(source),
        EVENT_SOURCE,
        f"rmos.run.{outcome.kind}.v1",
        timestamp_ms,
        outcome.run_id,
    )


def event_source(source: RecordSource) -> dict[str, Any]:
    """Return how every event names the record that it is about."""
    return {
        "topic": source.id.topic,
        "partition": source.id.partition,
        "offset": source.id.offset,
    }


def cloud_event_headers(
    identity: str, origin: str, kind: str, timestamp_ms: int, subject: str | None
) -> Headers:
    """Return the attributes of a CloudEvent.

    Args:
        identity: Its `ce_id`.
        origin: Its `ce_source`.
        kind: Its `ce_type`.
        timestamp_ms: Broker time of the record that it is about.
        subject: Its `ce_subject`, where it has one.
    """
    headers = [
        _SPECVERSION,
        ("ce_id", identity.encode()),
        ("ce_source", origin.encode()),
        ("ce_type", kind.encode()),
        ("ce_time", broker_time(timestamp_ms).encode()),
        _CONTENT_TYPE,
    ]
    if subject is not None:
        headers.append(("ce_subject", subject.encode()))
    return headers


@lru_cache(maxsize=256)  # A producer's batch has few moments.
def broker_time(timestamp_ms: int) -> str:
    """Return a broker time as a stored time; one before 1970 or after 9999 as the nearest in it.

    A record without a time has -1; any other can come where a topic keeps the producers' times.
    """
    known_ms = min(max(timestamp_ms, 0), _LATEST_MS)
    return format_timestamp(_EPOCH + timedelta(milliseconds=known_ms))
