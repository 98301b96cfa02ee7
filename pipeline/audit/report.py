"""The report of an audit: verdicts, counts, and the size of each log."""

import os
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from pipeline.audit.journal import AUDITS_FOLDER
from pipeline.core.json.canonical import canonical_json
from pipeline.core.json.strict import InvalidJsonError, parse_object
from pipeline.disk.durable_files import Creation, DurableFiles, NewFile
from pipeline.disk.faults import store_faults
from pipeline.disk.regular_files import NotAFileError, read_below
from pipeline.errors import IntegrityError
from schemas.audit_report import AuditReport

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
