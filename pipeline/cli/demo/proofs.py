"""The chapters of the audits: one of a clean store, and one that names what was changed.

The chapter of the evidence: one file about one run, checked without this program.

The chapter of the migration: a small v1 store is carried over as history, and verified.

The chapter of the recovery: a deleted artifact comes back, and the request that missed it.

The chapter of the attachments: verified, one byte flipped on the disk, verified again.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, closing
from importlib.resources import files
from pathlib import Path
from typing import Any

from pipeline.audit.worker.asking import listening, publish_audit
from pipeline.broker.event_reader import EventFuture, EventReader
from pipeline.broker.publisher import RunPublisher
from pipeline.broker.sending.requests import RequestSender
from pipeline.cli.demo.requests import DemoRequest
from pipeline.cli.demo.screen import DemoApi, Screen
from pipeline.cli.ledger import open_logs
from pipeline.core.dead_letters.redrive import RedriveResult
from pipeline.core.dead_letters.selection import DeadLetterFilter
from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.layout import attachment_path
from pipeline.core.progress import no_progress
from pipeline.errors import IntegrityError
from pipeline.evidence.bundle import write_evidence
from pipeline.evidence.gather import gather_evidence
from pipeline.legacy.check import verify_migration
from pipeline.legacy.migration import MigrationOptions, migrate_into_store
from pipeline.legacy.report import MigrationResult
from pipeline.legacy.source import OlderStore, open_source
from pipeline.recovery.dead_letters.redriving import RedriveOrder, redrive
from pipeline.recovery.replay.restore import restore
from pipeline.recovery.replay.selection import Selection
from pipeline.settings import Settings
from pipeline.storage.reader import RunReader
from pipeline.topics import REQUEST_PARTITIONS
from schemas.audit_request import AuditRequest, AuditScope
from schemas.run_event import RunEvent

_SHOWN_VERDICTS = ("integrity", "completeness", "late")


async def show_clean_audit(settings: Settings, screen: Screen) -> None:
    """Audit the store as it was written.

    Raises:
        IntegrityError: Something is not as it was written.
        BrokerError: No report came.
    """
    screen.chapter("An audit of everything: each byte, each leaf, each signature")
    faults = await _audit(settings, "demo-clean", screen)
    if faults:
        message = f"The audit found {faults[0]} in a store that nobody has changed."
        raise IntegrityError(message)


async def show_audit_of_change(settings: Settings, changed: Path, screen: Screen) -> None:
    """Audit the store after somebody has changed the file at `changed`, relative to it.

    Raises:
        IntegrityError: The audit does not name exactly that file.
        BrokerError: No report came.
    """
    screen.chapter("The audit names the file")
    faults = await _audit(settings, "demo-changed", screen)
    if set(faults) != {str(changed)}:
        message = f"The audit named {faults}, not {changed}."
        raise IntegrityError(message)


async def _audit(settings: Settings, audit_id: str, screen: Screen) -> list[str]:
    """Ask for an audit, tell of it, and return the paths of what it found."""
    screen.command(f"rmos audit run --audit-id {audit_id}")
    request = AuditRequest(audit_id=audit_id, scope=AuditScope(all=True), mode="full")
    sender = RequestSender(settings)
    faults = []
    try:
        async with listening(settings, audit_id) as listener:
            place = await publish_audit(sender, settings, request)
            async with aclosing(listener.news(place)) as told:
                async for news in told:
                    for finding in news.findings:
                        # The story's requests are dated as its document is, which is late.
                        if finding["severity"] == "error":
                            faults.append(finding["path"])
                            _tell_finding(finding, screen)
                    if news.report is not None:
                        _tell_report(news.report, screen)
    finally:
        await sender.stop()
    return faults


def _tell_finding(finding: Mapping[str, Any], screen: Screen) -> None:
    screen.line(f"  {finding['severity']} {finding['code']}: {finding['path']}", "bold red")
    screen.line(f"    expected {finding['expected']}")
    screen.line(f"    found    {finding['found']}")


def _tell_report(report: Mapping[str, Any], screen: Screen) -> None:
    counts = report["counts"]
    screen.note(
        f"{counts['files_read']} files read, {counts['leaves']} leaves in {counts['logs']} logs"
    )
    for name in _SHOWN_VERDICTS:
        told = report["verdicts"][name]
        screen.line(f"  {name.upper()}: {told['result']}: {told['reason']}")
    screen.note("late: the story's requests are dated 2025-12-18, and came today")


def show_evidence(settings: Settings, run: RunEvent, folder: Path, screen: Screen) -> None:
    """Write the evidence about a run to `folder`, and let the bare Python check it there.

    Raises:
        IntegrityError: The evidence does not prove the run.
    """
    assert run.run_id is not None
    screen.chapter("Evidence about the GREEN one, for somebody who trusts nobody")
    screen.command(f"rmos evidence {run.run_id}")
    logs = open_logs(settings, None)
    bundle = folder / f"evidence-{run.run_id}.zip"
    with closing(RunReader(settings.data_dir)) as reader:
        found = gather_evidence(reader, logs, run.run_id)
        write_evidence(bundle, found, reader.attachments)
    screen.note(f"{bundle.stat().st_size:,} bytes: artifact, leaf, proof, page, verifier")
    verifier = folder / "verify.py"
    verifier.write_bytes((files("pipeline.evidence.verifier") / "verify.py").read_bytes())
    _verify_bundle(folder, bundle.name, str(found.keys[0]), screen)


def _verify_bundle(folder: Path, bundle: str, vkey: str, screen: Screen) -> None:
    screen.command(f'python3 -I -S verify.py {bundle} --key "$VKEY"')
    done = subprocess.run(
        [sys.executable, "-I", "-S", "verify.py", bundle, "--key", vkey],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
    )
    for line in (done.stdout + done.stderr).splitlines():
        screen.line(f"  {line}")
    if done.returncode:
        message = f"The evidence was refused with the exit status {done.returncode}."
        raise IntegrityError(message)


async def show_migration(settings: Settings, folder: Path, screen: Screen) -> None:
    """Write the file of an older store, carry its rows over, and compare each by hash.

    Raises:
        IntegrityError: A row is not what the source makes of it.
    """
    screen.chapter("Three rows of an older store are carried over, and verified")
    path = folder / "runs.json"
    path.write_text(json.dumps({row["run_id"]: row for row in _rows()}, indent=2))
    source = open_source(path, None)
    screen.command("rmos migrate run --from runs.json")
    result = await migrate_into_store(
        settings, source, MigrationOptions(), lambda row: None, no_progress
    )
    _tell(result, screen)
    screen.command("rmos migrate verify --from runs.json")
    await asyncio.to_thread(_verify_migrated, settings, source, screen)


def _tell(result: MigrationResult, screen: Screen) -> None:
    risks = result.counts["risks_before"], result.counts["risks_after"]
    for name, counts in zip(("before", "after "), risks, strict=True):
        told = ", ".join(f"{count} {risk}" for risk, count in sorted(counts.items()))
        screen.line(f"  risk {name}: {told}")
    for sentence in result.sentences():
        screen.line(f"  {sentence}")
    screen.note("history keeps the status that was recorded; may_cut is false for all of it")


def _verify_migrated(settings: Settings, source: OlderStore, screen: Screen) -> None:
    differences = list(
        verify_migration(source, settings.data_dir, backup_dir=None, progress=no_progress)
    )
    screen.line(f"  {len(source.rows)} rows compared, {len(differences)} differences", "green")
    if differences:
        message = f"{differences[0].run_id} is not what the older store makes of it."
        raise IntegrityError(message)


def _rows() -> list[dict[str, Any]]:
    """Return rows as v1 wrote them: the verdict deep in the evaluation, where v1 missed it."""
    return [
        _row("run_v1_green", "OK", {"risk_level": "GREEN", "score": 94.0}),
        _row(
            "run_v1_unknown",
            "BLOCKED",
            {"risk_level": "UNKNOWN", "block_reason": "Unsupported mode: unknown"},
        ),
        _row("run_v1_unevaluated", "OK", {}),
    ]


def _row(run_id: str, status: str, safety: dict[str, Any]) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "created_at_utc": "2025-11-03T09:12:44.501200+00:00",
        "event_type": "approval",
        "status": status,
        "workflow_mode": "router",
        "tool_id": "router:endmill_6mm",
        "feasibility": {"mode": "router", "safety": safety},
        "request_hash": "0" * 64,
    }


_CODE = "ARTIFACT_CORRUPT"


async def show_recovery(
    settings: Settings, run: RunEvent, request: DemoRequest, screen: Screen
) -> None:
    """Delete an artifact, let its request come again, restore it, and redrive the dead letter.

    Raises:
        IntegrityError: What came back is not what was deleted.
        BrokerError: The broker did not answer.
    """
    assert run.artifact_path is not None
    screen.chapter("An artifact is deleted, and restored from the topic with the same hash")
    path = settings.data_dir / run.artifact_path
    path.unlink()
    screen.command(f"rm {run.artifact_path}")
    async with RunPublisher(settings) as publisher:
        event = await (await publisher.send_raw(request.key, request.value)).event()
    assert event.error is not None
    screen.line(f"  its request comes again: {event.outcome}, {event.error.code}", "bold red")
    await _restore(settings, run, path, screen)
    await _redrive(settings, screen)


async def _restore(settings: Settings, run: RunEvent, path: Path, screen: Screen) -> None:
    screen.command(f"rmos replay restore --run-id {run.run_id}")
    await restore(settings, Selection(run_id=run.run_id), lambda finding: None)
    found = await asyncio.to_thread(lambda: sha256_of_bytes(path.read_bytes()))
    screen.line(f"  {found}  restored")
    screen.line(f"  {run.artifact_sha256}  as the event said")
    if found != run.artifact_sha256:
        message = f"{run.artifact_path} came back with another hash."
        raise IntegrityError(message)


async def _redrive(settings: Settings, screen: Screen) -> None:
    screen.command(f"rmos dead-letters redrive --code {_CODE}")
    order = RedriveOrder(DeadLetterFilter(codes=frozenset({_CODE})))
    async with _event_reader(settings) as reader:
        ticket = reader.matcher.announce()
        (result,) = [each async for each in redrive(settings, order)]
        event = await _event_of(result, ticket, reader)
    screen.line(f"  {result.letter.identity} is now {result.redriven_as}: {event.outcome}", "green")
    screen.note("a duplicate is a success: the artifact is there, and may_cut says so again")


@asynccontextmanager
async def _event_reader(settings: Settings) -> AsyncIterator[EventReader]:
    reader = EventReader(settings, settings.topics.run_events, range(REQUEST_PARTITIONS))
    await reader.start()
    try:
        yield reader
    finally:
        await reader.stop()


async def _event_of(result: RedriveResult, ticket: int, reader: EventReader) -> RunEvent:
    place = result.redriven_as
    if place is None:
        message = f"The dead letter was not sent: {result.status}."
        raise IntegrityError(message)
    event = EventFuture(loop=asyncio.get_running_loop())
    reader.matcher.expect(ticket, place, event)
    return RunEvent.model_validate_json(await event)


async def show_verification(root: Path, run: RunEvent, api: DemoApi) -> Path:
    """Let the API read an attachment before and after somebody changed it; return its path.

    Raises:
        IntegrityError: The changed byte was not found, or one that nobody changed was.
        ServiceError: The API said something else.
    """
    screen = api.screen
    screen.chapter("One byte of an attachment is flipped on the disk, and found")
    before = await _verified(run, api, expected=True)
    path = attachment_path(before["sha256"])
    _flip_last_byte(root / path)
    screen.note(f"chmod u+w, one bit of the last byte flipped, chmod u-w: {path[:36]}...")
    after = await _verified(run, api, expected=False)
    screen.line(f"  expected {after['sha256']}")
    screen.line(f"  found    {after['actual_sha256']}")
    return Path(path)


async def _verified(run: RunEvent, api: DemoApi, *, expected: bool) -> dict[str, Any]:
    document = (await api.get(f"/{run.run_id}/attachments/verify")).document
    verification = document["verification"]
    result: dict[str, Any] = verification["results"][0]
    found = result["error"] or "as it was written"
    style = "green" if verification["ok"] else "bold red"
    api.screen.line(f"  {result['filename']}, {result['size_bytes']:,} bytes: {found}", style)
    if verification["ok"] is not expected:
        message = f"{result['filename']}: expected ok to be {expected}."
        raise IntegrityError(message)
    return result


def _flip_last_byte(path: Path) -> None:
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)[0]
        file.seek(-1, 2)
        file.write(bytes([last ^ 1]))
    path.chmod(0o444)
