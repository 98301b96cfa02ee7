"""Stores to audit, what audits say of them, and ways to damage one behind the program's back."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pipeline.audit.audited_store import AuditedStore, audited_folder
from pipeline.audit.rules.finding import Finding
from pipeline.audit.steps import PartDone, Tally
from pipeline.audit.store_audit import StoreAudit
from pipeline.core.advisories.verdict import judge_advisory_record
from pipeline.core.record import RecordId, RecordSource
from pipeline.core.runs.verdict import judge_run_record
from pipeline.storage.advisory_store import AdvisoryStore
from pipeline.storage.batch_plan import JudgedRecord
from pipeline.storage.store import open_store_to_write
from schemas.audit_report import AuditReport
from schemas.audit_request import AuditRequest
from schemas.timestamps import microseconds_since_epoch, parse_timestamp
from tests.builders import (
    ABSENT,
    advisory_request,
    attachment,
    record,
    red_request,
    run_request,
    sha256,
)
from tests.ledger.ledgers import KEYS, ledger
from tests.storage.stores import TOPIC, make_store, opened

ADVISORIES = "rmos.advisories.requests"
NOW = "2026-02-01T10:00:00Z"
DRAWING = b"0\nSECTION\n2\nENTITIES\n"
LARGE_GCODE = "G1 X1.0000 F1200\n" * 13_000

RUN = "runs/2025-12-18/run_0.json"
LINK = "runs/2025-12-18/run_0_advisory_adv_0.json"
RED = "runs/2025-12-19/run_red.json"
WITH_DRAWING = "runs/2025-12-18/run_drawing.json"
WITH_LARGE_GCODE = "runs/2025-12-18/run_large.json"
LOG = "ledger/1/rmos.runs.requests-0"


def broker_ms(created_at_utc: str, seconds: int = 1) -> int:
    """Return the broker time of a record that came so many seconds after it was made."""
    return microseconds_since_epoch(parse_timestamp(created_at_utc)) // 1000 + seconds * 1000


def run_record(
    request: dict[str, Any],
    offset: int,
    *,
    partition: int = 0,
    seconds: int = 1,
    topic: str = TOPIC,
    epoch: int = 1,
) -> JudgedRecord[Any]:
    """Return a judged run request that came so many seconds after it was made."""
    key, value = record(request)
    return JudgedRecord.of(
        RecordSource(epoch, RecordId(topic, partition, offset)),
        judge_run_record(key, value),
        value,
        broker_ms(request["created_at_utc"], seconds),
    )


def advisory_record(
    request: dict[str, Any], offset: int, *, partition: int = 0, seconds: int = 1
) -> JudgedRecord[Any]:
    """Return a judged advisory request."""
    key, value = record(request)
    return JudgedRecord.of(
        RecordSource(1, RecordId(ADVISORIES, partition, offset)),
        judge_advisory_record(key, value),
        value,
        broker_ms(request["created_at_utc"], seconds),
    )


def add_runs(root: Path, records: Sequence[JudgedRecord[Any]]) -> None:
    """Store run requests, as a process that has just started."""
    with opened(root, ledger=ledger(root)) as store:
        store.commit(records)


def add_advisories(root: Path, records: Sequence[JudgedRecord[Any]]) -> None:
    """Store advisory requests, as a process that has just started."""
    store = AdvisoryStore(open_store_to_write(root), ledger=ledger(root))
    try:
        store.commit(records)
    finally:
        store.close()


def run(number: object, date: str = "2025-12-18", **changes: Any) -> dict[str, Any]:
    """Return the request of a run that was made on this date."""
    created = f"{date}T14:03:22Z"
    return run_request(**({"run_id": f"run_{number}", "created_at_utc": created} | changes))


def advisory(number: object, run_id: str, **changes: Any) -> dict[str, Any]:
    """Return the request of an advisory about a run."""
    named = {"advisory_id": f"adv_{number}", "run_id": run_id}
    return advisory_request(**(named | {"created_at_utc": "2025-12-18T15:00:00Z"} | changes))


def make_audited(root: Path) -> None:
    """Make a store with one of everything: three dates, two partitions, five kinds of leaf."""
    root.mkdir(parents=True, exist_ok=True)
    make_store(root)
    runs, others, advisories = audited_records()
    add_runs(root, runs)
    add_runs(root, others)
    add_advisories(root, advisories)


def audited_records() -> tuple[list[JudgedRecord[Any]], ...]:
    """Return the records of such a store: runs of two partitions, and advisories."""
    drawing = attachment(DRAWING, created_at_utc="2025-12-18T14:00:00Z")
    requests = [
        *(run(number) for number in range(5)),
        run(0),
        run(1, notes="changed"),
        run("drawing", attachments=[drawing]),
        run("large", outputs={"gcode_text": LARGE_GCODE, "opplan_json": {"steps": [1, 2.5]}}),
        red_request(run_id="run_red", created_at_utc="2025-12-19T00:00:00Z", attachments=[drawing]),
        run("late_in_the_day", "2025-12-20", tool_id=ABSENT),
    ]
    return (
        [run_record(request, offset) for offset, request in enumerate(requests)],
        [run_record(run(f"other_{n}", "2025-12-20"), n, partition=7) for n in range(3)],
        [
            advisory_record(advisory(0, "run_0"), 0),
            advisory_record(advisory(0, "run_0"), 1),
            advisory_record(advisory(0, "run_0", content_text="Another."), 2),
            advisory_record(advisory(1, "run_red", content_text=ABSENT, content_json=[1]), 3),
            advisory_record(advisory(2, "run_that_has_not_come"), 4),
        ],
    )


class Template:
    """A store that is made once and copied for each test."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def copy_to(self, root: Path) -> Path:
        """Return a copy with the modes of the original."""
        shutil.copytree(self._root, root)
        return root


class Audited(BaseModel):
    """What an audit said."""

    model_config = {"arbitrary_types_allowed": True}

    findings: list[Finding]
    parts: list[str]
    report: dict[str, Any]

    @property
    def codes(self) -> set[str]:
        """The codes that were found."""
        return {finding.code for finding in self.findings}

    @property
    def paths(self) -> set[str]:
        """Where something was found."""
        return {finding.path for finding in self.findings}

    @property
    def results(self) -> dict[str, str]:
        """The result of each verdict."""
        return {name: each["result"] for name, each in self.report["verdicts"].items()}


def audit(root: Path, mode: str = "full", *given: Any, **options: Any) -> Audited:
    """Audit the store at `root`, as `audit_store` does."""
    return audit_store(audited_folder(root), mode, *given, **options)


def audit_store(
    store: AuditedStore,
    mode: str = "full",
    scope: dict[str, Any] | None = None,
    *,
    audit_id: str = "audit_1",
    skip: Sequence[str] = (),
    while_running: Callable[[Finding | PartDone], None] = lambda event: None,
    **options: Any,
) -> Audited:
    """Audit a store, in this process where the options do not say otherwise."""
    request = AuditRequest.model_validate(
        {"audit_id": audit_id, "scope": scope or {"all": True}, "mode": mode}
    )
    options = {"keys": KEYS, "processes": 0} | options
    tally = Tally()
    findings: list[Finding] = []
    parts: list[str] = []
    with StoreAudit(store, request, **options) as opened_audit:
        for event in opened_audit.run(skip):
            if isinstance(event, PartDone):
                tally.add(event.tally)
                parts.append(event.name)
            else:
                findings.append(event)
            while_running(event)
        report = opened_audit.report(tally, started_at_utc=NOW, finished_at_utc=NOW)
    AuditReport.model_validate(report)
    return Audited(findings=findings, parts=parts, report=report)


@contextmanager
def writable(path: Path) -> Iterator[None]:
    """Let a file be changed for a while; its mode comes back."""
    mode = path.stat().st_mode
    path.chmod(mode | 0o200)
    yield
    if path.exists():
        path.chmod(mode)


def overwrite(path: Path, content: bytes) -> None:
    """Put other bytes into a file, with its mode as it was."""
    with writable(path):
        path.write_bytes(content)


def flip(path: Path, bit: int) -> None:
    """Flip one bit of a file, counted from its start."""
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    overwrite(path, bytes(content))


def add_file(path: Path, content: bytes = b"{}", mode: int = 0o444) -> None:
    """Put a file into a store."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)


def blob(content: bytes | str, area: str = "attachments") -> str:
    """Return the path of a blob with this content."""
    name = sha256(content)
    return f"{area}/{name[:2]}/{name[2:4]}/{name}"
