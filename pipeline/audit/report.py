"""The report of an audit: verdicts, counts, and how far each log went.

It is `audits/<audit_id>.json`, written once, when every part is done.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from pipeline.audit.checks.logs import AuditedLog
from pipeline.audit.journal import AUDITS_FOLDER
from pipeline.audit.parts import Tally
from pipeline.audit.rules.finding import Asked, verdicts
from pipeline.core.json.canonical import canonical_json
from pipeline.core.json.strict import InvalidJsonError, parse_object
from pipeline.disk.durable_files import Creation, DurableFiles, NewFile
from pipeline.disk.faults import store_faults
from pipeline.disk.regular_files import NotAFileError, read_below
from pipeline.errors import IntegrityError
from schemas.audit_report import AUDIT_REPORT_VERSION, AuditReport
from schemas.audit_request import AuditRequest

REPORT_LIMIT_BYTES: Final = 16 << 20
"""No report is nearly as large: it has a line a log and a count a kind."""


def report_name(audit_id: str) -> str:
    """Return where the report of an audit is, relative to the store."""
    return f"{AUDITS_FOLDER}/{audit_id}.json"


def has_report(root: Path, audit_id: str) -> bool:
    """Return whether an audit has a report."""
    return os.path.lexists(root / report_name(audit_id))


def read_report(root: Path, audit_id: str) -> tuple[dict[str, Any], bytes] | None:
    """Return the report of an audit and its bytes; None where there is none.

    Raises:
        IntegrityError: What is there is not the report of this audit.
        StoreError: The disk failed.
    """
    with store_faults(root):
        try:
            content = read_below(root, report_name(audit_id), REPORT_LIMIT_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except NotAFileError as error:
            raise _no_report(audit_id, str(error)) from error
    try:
        document, canonical = parse_object(content)
        AuditReport.model_validate(document)
    except (InvalidJsonError, ValidationError) as error:
        raise _no_report(audit_id, "something else") from error
    if canonical != content:
        raise _no_report(audit_id, "JSON that is written otherwise")
    if document["audit_id"] != audit_id:
        raise _no_report(audit_id, "that of another audit")
    return document, content


def write_report(root: Path, report: dict[str, Any]) -> bytes:
    """Write the report of an audit, durably; return its bytes.

    Raises:
        IntegrityError: Something else is in its place; it was not touched.
        StoreError: The disk failed.
    """
    content = canonical_json(report)
    path = report_name(report["audit_id"])
    with store_faults(root):
        creation = DurableFiles(root).create([NewFile(path, content)])[path]
    if creation is Creation.DIFFERENT:
        raise _no_report(report["audit_id"], "another file")
    return content


def _no_report(audit_id: str, found: str) -> IntegrityError:
    return IntegrityError(
        f"Expected the report of the audit {audit_id} at {report_name(audit_id)}, found {found}. "
        "Nothing was touched."
    )


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
    trusted: int,
    asked_broker: bool,
    **optional: Any,  # noqa: ANN401
) -> dict[str, Any]:
    """Return the report in the shape of `AuditReport`.

    Args:
        request: What was asked.
        tally: Of all parts.
        logs: As they were when the audit began.
        store_id: Of the store.
        trusted: How many trusted checkpoints were given.
        asked_broker: Whether the broker was asked which offsets it can show.
        optional: More fields; those that are None are left out.
    """
    leaves = sum(log.size for log in logs)
    anchored = sum(log.anchored_size for log in logs)
    asked = Asked(request.mode, asked_broker, trusted, leaves, anchored)
    counts = {name: tally.counts[name] for name in _COUNTED}
    report: dict[str, Any] = {
        "schema_version": AUDIT_REPORT_VERSION,
        "audit_id": request.audit_id,
        "scope": request.scope.model_dump(exclude_none=True),
        "mode": request.mode,
        "verdicts": verdicts(tally.codes, asked),
        "counts": counts | {"logs": len(logs), "leaves": leaves, "anchored_leaves": anchored},
        "codes": dict(sorted(tally.codes.items())),
        "logs": [_log_document(log, store_id) for log in logs],
    }
    if report["verdicts"]["integrity"]["result"] != "ok" or tally.codes["LINK_WAITING"]:
        # It is that of the files on the disk only if all that leaves name are there.
        optional.pop("store_root", None)
    return report | {name: value for name, value in optional.items() if value is not None}


def _log_document(log: AuditedLog, store_id: str) -> dict[str, Any]:
    return {
        "origin": log.log.origin(store_id),
        "size": log.size,
        "root_sha256": log.root.hex(),
        "anchored_size": log.anchored_size,
    }
