"""The event that reports the outcome of an advisory request, and its CloudEvents headers.

Every delivery of one event has the same bytes. So only `linked` names the path of the link: whether
the claim of a duplicate or a conflict has been linked by then is a matter of timing.
"""

import hashlib
from typing import Any

from pipeline.core.advisories.outcome import AdvisoryOutcome
from pipeline.core.json.canonical import canonical_json
from pipeline.core.record import RecordSource
from pipeline.core.runs.event import Headers, cloud_event_headers, event_source
from schemas.advisory_event import ADVISORY_EVENT_VERSION

ADVISORY_EVENT_SOURCE = "/rmos/advise"


def advisory_event_id(source: RecordSource, kind: str) -> str:
    """Return the SHA-256 of `epoch/topic/partition/offset/outcome`: a record can have several."""
    name = f"{source.epoch}/{source.id.topic}/{source.id.partition}/{source.id.offset}/{kind}"
    return hashlib.sha256(name.encode()).hexdigest()


def advisory_event(outcome: AdvisoryOutcome, source: RecordSource) -> bytes:
    """Return the value of the event: canonical JSON of an `AdvisoryEvent`."""
    event: dict[str, Any] = {
        "schema_version": ADVISORY_EVENT_VERSION,
        "event_id": advisory_event_id(source, outcome.kind),
        "outcome": outcome.kind,
        "source": event_source(source),
    }
    fields: dict[str, Any] = {"run_id": outcome.run_id, "advisory_id": outcome.advisory_id}
    advisory = outcome.advisory
    if advisory is not None:
        fields |= {
            "kind": advisory.claim.kind,
            "content_sha256": advisory.claim.content_sha256,
            "link_sha256": advisory.link_sha256,
            "link_path": advisory.link_path if outcome.kind == "linked" else None,
        }
    event |= {name: value for name, value in fields.items() if value is not None}
    if outcome.code is not None:
        event["error"] = {"code": outcome.code, "message": outcome.message}
    return canonical_json(event)


def advisory_event_headers(
    outcome: AdvisoryOutcome, source: RecordSource, timestamp_ms: int
) -> Headers:
    """Return the headers of the event of a record with broker time `timestamp_ms`."""
    return cloud_event_headers(
        advisory_event_id(source, outcome.kind),
        ADVISORY_EVENT_SOURCE,
        f"rmos.advisory.{outcome.kind}.v1",
        timestamp_ms,
        outcome.run_id,
    )
