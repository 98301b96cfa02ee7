"""Requests in files: one JSON object, or one object a line (NDJSON)."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pipeline.broker.sending.requests import new_run_id
from pipeline.cli.options import STANDARD_INPUT
from pipeline.core.advisories.verdict import judge_advisory_record
from pipeline.core.json.canonical import canonical_json
from pipeline.core.json.strict import InvalidJsonError, parse_object
from pipeline.core.runs.verdict import Rejected, judge_run_record
from pipeline.errors import InputError, RefusedError, input_faults
from schemas.timestamps import format_timestamp

_TOLD = 10


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One record of a file.

    Attributes:
        where: File and line, for a sentence.
        body: Its bytes, as they are sent.
        run_id: Where it has one that can be read.
    """

    where: str
    body: bytes
    run_id: str | None

    @property
    def key(self) -> bytes | None:
        """The record's key."""
        return self.run_id.encode() if self.run_id is not None else None


def read_records(names: list[str], *, raw: bool) -> list[FileRecord]:
    """Return every record of the files; `-` is standard input.

    Args:
        names: The files.
        raw: Whether a line that is no JSON object is a record all the same.

    Raises:
        InputError: A file cannot be read or holds no records, or, unless `raw`, something that
            is not strict JSON.
    """
    return [record for name in names for record in _records_of(name, raw=raw)]


def _records_of(name: str, *, raw: bool) -> Iterator[FileRecord]:
    content = _content(name)
    if name == STANDARD_INPUT:
        name = "standard input"
    whole = _record(name, content.strip())
    if whole is not None:
        yield whole
        return
    lines = [(number, line) for number, line in enumerate(content.splitlines(), 1) if line.strip()]
    if not lines:
        raise InputError(f"{name} is empty: expected a JSON object, or one a line.")
    if not raw and _is_one_document(lines):
        raise InputError(f"{name}: {_why_not(content)}; --raw would send each line as it is.")
    for number, line in lines:
        where = f"{name}, line {number}"
        record = _record(where, line.strip())
        if record is not None:
            yield record
        elif raw:
            yield FileRecord(where, line, None)
        else:
            raise InputError(f"{where}: {_why_not(line)}; --raw would send it as it is.")


def _is_one_document(lines: list[tuple[int, bytes]]) -> bool:
    """Return whether lines are most likely parts of one document: none is an object by itself."""
    return len(lines) > 1 and all(_record("", line.strip()) is None for _, line in lines)


def _content(name: str) -> bytes:
    with input_faults(f"{name} cannot be read"):
        return sys.stdin.buffer.read() if name == STANDARD_INPUT else Path(name).read_bytes()


def _record(where: str, body: bytes) -> FileRecord | None:
    try:
        document, _ = parse_object(body)
    except InvalidJsonError:
        return None
    run_id = document.get("run_id")
    return FileRecord(where, body, run_id if isinstance(run_id, str) else None)


def _why_not(line: bytes) -> str:
    try:
        parse_object(line)
    except InvalidJsonError as error:
        if error.at_byte is None or b"\n" not in line:
            return str(error)
        before = line[: error.at_byte]
        column = error.at_byte - (before.rfind(b"\n") + 1)
        line_number = before.count(b"\n") + 1
        return f"{error}, which is byte {column} of line {line_number}"
    return "expected strict JSON"


def as_new(record: FileRecord) -> FileRecord:
    """Return a request with a new run_id and the time of now, so that it is a new run.

    Raises:
        InputError: It is no JSON object.
    """
    try:
        document, _ = parse_object(record.body)
    except InvalidJsonError as error:
        raise InputError(f"{record.where}: {error}; --as-new needs a JSON object.") from error
    run_id = new_run_id()
    now = format_timestamp(datetime.now(UTC))
    body = canonical_json({**document, "run_id": run_id, "created_at_utc": now})
    return FileRecord(record.where, body, run_id)


def refuse_bad_requests(
    records: list[FileRecord], fault_of: Callable[[FileRecord], str | None]
) -> None:
    """Check that every record is a complete request.

    Args:
        records: The records.
        fault_of: Returns the fault of one: `run_fault` or `advisory_fault`.

    Raises:
        RefusedError: One is not; its lines name the first ten and why.
    """
    bad = [(record, why) for record in records if (why := fault_of(record)) is not None]
    if not bad:
        return
    lines = [f"{record.where}: {why}" for record, why in bad[:_TOLD]]
    if len(bad) > _TOLD:
        lines.append(f"and {len(bad) - _TOLD} more")
    raise RefusedError(
        f"{len(bad)} of {len(records)} requests are not valid, so none was sent "
        "(--raw sends them all the same):",
        lines,
    )


def run_fault(record: FileRecord) -> str | None:
    """Return what is wrong with a run request."""
    verdict = judge_run_record(record.key, record.body)
    if isinstance(verdict, Rejected):
        return f"{verdict.code}: {verdict.message}"
    if not verdict.is_incomplete:
        return None
    violations = verdict.built.document["decision"]["details"]["violations"]
    return "; ".join(f"{each['field']}: {each['reason']}" for each in violations)


def advisory_fault(record: FileRecord) -> str | None:
    """Return what is wrong with an advisory request."""
    verdict = judge_advisory_record(record.key, record.body)
    return f"{verdict.code}: {verdict.message}" if isinstance(verdict, Rejected) else None
