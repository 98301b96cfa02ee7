"""The outcome of an advisory request, and the event that reports it.

An outcome is linked, duplicate, conflict, rejected or waiting. The first well-formed request takes
the id and keeps it. Whether it is linked or still waits follows from whether its run is there; what
every other request is follows from the first alone.

Every delivery of one event has the same bytes. So only `linked` names the path of the link: whether
the claim of a duplicate or a conflict has been linked by then is a matter of timing.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from pipeline.core.advisories.verdict import AdvisoryClaim, JudgedAdvisory, claim_of_link
from pipeline.core.envelope import Rejected
from pipeline.core.json.canonical import canonical_json
from pipeline.core.record import RecordSource
from pipeline.core.runs.event import Headers, cloud_event_headers, event_source
from schemas.advisory_event import ADVISORY_EVENT_VERSION

AdvisoryOutcomeKind = Literal["linked", "duplicate", "conflict", "rejected", "waiting"]


@dataclass(frozen=True, slots=True)
class StoredAdvisory:
    """What the index holds of an advisory: its first request's claim, and its link if it has one.

    Attributes:
        source: The record that first claimed the id; None where only its link is known.
        created_at_utc: Normalised.
        claim: What another request for the same id must agree on.
        mime: Of the content, where it came with the request.
        size_bytes: Likewise.
        link_sha256: Of the link's bytes, whether it is there yet or not.
        link_path: Of the link, relative to the store; None as long as it waits for its run.
    """

    run_id: str
    advisory_id: str
    source: RecordSource | None
    created_at_utc: str
    claim: AdvisoryClaim
    request_id: str | None
    title: str | None
    mime: str | None
    size_bytes: int | None
    link_sha256: str
    link_path: str | None

    @property
    def key(self) -> tuple[str, str]:
        """Run and advisory: what names it."""
        return self.run_id, self.advisory_id


@dataclass(frozen=True, slots=True)
class AdvisoryOutcome:
    """What became of one record.

    Attributes:
        kind: One of five; conflict and rejected mean a dead letter.
        run_id: Where it could be read.
        advisory_id: Likewise.
        advisory: What the store holds under this id, as far as it may be shown.
        code: Why there is a dead letter; None where there is none.
        message: The same in one sentence.
        drifted: Our program renders another link than it once did: our fault, and an alarm.
    """

    kind: AdvisoryOutcomeKind
    run_id: str | None = None
    advisory_id: str | None = None
    advisory: StoredAdvisory | None = None
    code: str | None = None
    message: str | None = None
    drifted: bool = False

    @property
    def is_dead_letter(self) -> bool:
        """Whether it has a dead letter."""
        return self.code is not None


def stored_advisory(
    judged: JudgedAdvisory, source: RecordSource | None, link_path: str | None
) -> StoredAdvisory:
    """Return what the index will hold of an advisory that `source` claims."""
    return advisory_of_link(judged.link, judged.link_sha256, link_path, source)


def advisory_of_link(
    link: Mapping[str, Any],
    link_sha256: str,
    link_path: str | None,
    source: RecordSource | None,
) -> StoredAdvisory:
    """Return what the index holds of the advisory that has the link `link`."""
    return StoredAdvisory(
        link["run_id"],
        link["advisory_id"],
        source,
        link["created_at_utc"],
        claim_of_link(link),
        link.get("request_id"),
        link.get("title"),
        link.get("mime"),
        link.get("size_bytes"),
        link_sha256,
        link_path,
    )


def resolve_rejected_advisory(rejected: Rejected) -> AdvisoryOutcome:
    """Return the outcome of a record that can never make an advisory."""
    return AdvisoryOutcome(
        "rejected", run_id=rejected.run_id, code=rejected.code, message=rejected.message
    )


def resolve_advisory(
    judged: JudgedAdvisory, advisory: StoredAdvisory, source: RecordSource, *, intact: bool
) -> AdvisoryOutcome:
    """Return the outcome of a record whose id the store now holds.

    Args:
        judged: What the record asks for.
        advisory: What the store holds; claimed by this very record where it is new.
        source: The record.
        intact: Whether the link, if there is to be one, is there with its bytes.
    """
    known = AdvisoryOutcome(
        "duplicate", run_id=advisory.run_id, advisory_id=advisory.advisory_id, advisory=advisory
    )
    if not intact:
        return replace(
            known,
            kind="rejected",
            advisory=None,
            code="ARTIFACT_CORRUPT",
            message=f"Expected {advisory.link_path} with SHA-256 {advisory.link_sha256}, found no "
            "file or other bytes there. Nothing was touched.",
        )
    if judged.claim != advisory.claim:
        return replace(
            known,
            kind="conflict",
            code="ADVISORY_CONFLICT",
            message="Expected the kind, engine and content of the first request for this "
            f"advisory_id, which made the link with SHA-256 {advisory.link_sha256}, found "
            "others. A changed advisory needs a new advisory_id.",
        )
    if advisory.source != source:
        return known
    return replace(
        known,
        kind="waiting" if advisory.link_path is None else "linked",
        drifted=judged.link_sha256 != advisory.link_sha256,
    )


def run_not_found(waiting: AdvisoryOutcome) -> AdvisoryOutcome:
    """Return the outcome of a record whose run has not come in time.

    It informs the operator and ends nothing: the claim stays, and is linked once the run appears.
    """
    return replace(
        waiting,
        kind="rejected",
        code="RUN_NOT_FOUND",
        message=f"Expected the run {waiting.run_id}, which has not come in time. The advisory "
        "keeps its id and is linked when the run appears.",
    )


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
