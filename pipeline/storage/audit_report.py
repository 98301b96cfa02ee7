"""The report of an audit: its verdicts, what was looked at, and how far each log went."""

from collections.abc import Sequence
from typing import Any, Final

from pipeline.audit.checks.logs import AuditedLog
from pipeline.audit.tally import Tally
from pipeline.core.audit_verdicts import Asked, verdicts
from schemas.audit_report import AUDIT_REPORT_VERSION
from schemas.audit_request import AuditRequest

_COUNTED: Final = (
    "days",
    "artifacts",
    "links",
    "attachments",
    "quarantined",
    "files_read",
    "bytes_read",
    "findings",
)


def audit_report(
    request: AuditRequest,
    tally: Tally,
    logs: Sequence[AuditedLog],
    *,
    store_id: str,
    held: int,
    asked_broker: bool,
    **optional: Any,  # noqa: ANN401
) -> dict[str, Any]:
    """Return the report in the shape of `AuditReport`.

    Args:
        request: What was asked.
        tally: Of all parts.
        logs: As they were when the audit began.
        store_id: Of the store.
        held: How many checkpoints that somebody holds were given.
        asked_broker: Whether the broker was asked which offsets it can show.
        optional: More fields; those that are None are left out.
    """
    leaves = sum(log.size for log in logs)
    anchored = sum(log.anchored_size for log in logs)
    asked = Asked(request.mode, asked_broker, held, leaves, anchored)
    counts = {name: tally.counts[name] for name in _COUNTED}
    report: dict[str, Any] = {
        "schema_version": AUDIT_REPORT_VERSION,
        "audit_id": request.audit_id,
        "scope": request.scope.model_dump(exclude_none=True),
        "mode": request.mode,
        "verdicts": verdicts(tally.codes, asked),
        "counts": counts | {"logs": len(logs), "leaves": leaves, "anchored_leaves": anchored},
        "codes": dict(sorted(tally.codes.items())),
        "logs": [_told(log, store_id) for log in logs],
    }
    if report["verdicts"]["integrity"]["result"] != "ok" or tally.codes["LINK_WAITING"]:
        # It is that of the files which leaves tell of, only if they are there.
        optional.pop("store_root", None)
    return report | {name: value for name, value in optional.items() if value is not None}


def _told(log: AuditedLog, store_id: str) -> dict[str, Any]:
    return {
        "origin": log.log.origin(store_id),
        "size": log.size,
        "root_sha256": log.root.hex(),
        "anchored_size": log.anchored_size,
    }
