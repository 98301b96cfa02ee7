"""AdvisoryEvent: what became of one record of the advisory request topic."""

from typing import Final, Literal

from schemas.advisory_request import AdvisoryKind
from schemas.fields import AdvisoryId, Frozen, Label, RunId, Sha256
from schemas.run_event import EventError, EventSource

ADVISORY_EVENT_VERSION: Final = "rmos.advisory_event/1"

AdvisoryOutcome = Literal["linked", "duplicate", "conflict", "rejected", "waiting"]


class AdvisoryEvent(Frozen):
    """At least one event for every record; de-duplicate by `event_id`.

    A record can have two: `waiting`, and later what became of it.
    """

    schema_version: Literal["rmos.advisory_event/1"] = ADVISORY_EVENT_VERSION
    event_id: Sha256
    outcome: AdvisoryOutcome
    run_id: RunId | None = None
    advisory_id: AdvisoryId | None = None
    kind: AdvisoryKind | None = None
    content_sha256: Sha256 | None = None
    link_sha256: Sha256 | None = None
    link_path: Label | None = None
    source: EventSource
    error: EventError | None = None
