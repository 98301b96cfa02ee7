"""AdvisoryLink: the immutable record that an advisory belongs to a run, as one file."""

from typing import Final, Literal

from schemas.advisory_request import AdvisoryKind
from schemas.fields import (
    AdvisoryId,
    Frozen,
    Label,
    Mime,
    Prose,
    RunId,
    Sha256,
    SizeBytes,
    UtcTimestamp,
)

ADVISORY_LINK_VERSION: Final = "rmos.advisory_link/1"


class AdvisoryLink(Frozen):
    """One file beside its run's, written once. Absent values are left out.

    Of content that was uploaded only the hash is known: `mime` and `size_bytes` are left out.
    """

    schema_version: Literal["rmos.advisory_link/1"]
    run_id: RunId
    advisory_id: AdvisoryId
    created_at_utc: UtcTimestamp
    kind: AdvisoryKind
    engine_id: Label | None = None
    engine_version: Label | None = None
    request_id: Label | None = None
    title: Prose | None = None
    content_sha256: Sha256 | None = None
    mime: Mime | None = None
    size_bytes: SizeBytes | None = None
