"""The chapters about damage and proof: audits, a changed byte, a lost file, migration, evidence."""

import json
import subprocess
import sys
from contextlib import closing
from importlib.resources import files
from typing import Any

from pipeline.cli.audit import ask_audit
from pipeline.cli.demo.requests import demo_requests
from pipeline.cli.demo.runs import Demo, expect, hash_of
from pipeline.cli.ledger import opened_logs
from pipeline.core.dead_letters.selection import DeadLetterFilter
from pipeline.core.layout import attachment_path
from pipeline.core.progress import no_progress
from pipeline.evidence.bundle import write_evidence
from pipeline.evidence.gather import gather_evidence
from pipeline.legacy.check import verify_migration
from pipeline.legacy.migration import MigrationOptions, migrate_into_store
from pipeline.legacy.source import open_source
from pipeline.recovery.redriving import redrive
from pipeline.recovery.replay.restore import restore
from pipeline.recovery.replay.selection import Selection
from pipeline.storage.reader import open_reader
from schemas.audit_request import AuditRequest, AuditScope
from schemas.http_answers import VerifiedAttachment
from schemas.run_event import RunEvent

_SHOWN_VERDICTS = ("integrity", "completeness", "late")


async def show_audit(demo: Demo, title: str, audit_id: str, changed: list[str]) -> None:
    """Audit everything; it must name exactly the paths in `changed`."""
    screen = demo.screen
    screen.chapter(title)
    screen.command(f"rmos audit run --audit-id {audit_id}")
    request = AuditRequest(audit_id=audit_id, scope=AuditScope(all=True), mode="full")
    findings: list[dict[str, Any]] = []
    report = await ask_audit(demo.settings, request, findings.append)
    # The demo's requests are dated as its document is, which is late, but no error.
    errors = [each for each in findings if each["severity"] == "error"]
    for each in errors:
        screen.line(f"  error {each['code']}: {each['path']}", "bold red")
        screen.line(f"    expected {each['expected']}")
        screen.line(f"    found    {each['found']}")
    counts = report["counts"]
    screen.note(
        f"{counts['files_read']} files read, {counts['leaves']} leaves in {counts['logs']} logs"
    )
    for name in _SHOWN_VERDICTS:
        verdict = report["verdicts"][name]
        screen.line(f"  {name.upper()}: {verdict['result']}: {verdict['reason']}")
    screen.note("late: the story's requests are dated 2025-12-18, and came today")
    named = [each["path"] for each in errors]
    expect(named == changed, f"The audit named {named}, not {changed}.")


async def show_flipped_byte(demo: Demo, run: RunEvent) -> str:
    """Let the API read an attachment before and after a bit of it is flipped; return its path."""
    screen = demo.screen
    screen.chapter("One byte of an attachment is flipped on the disk, and found")
    before = await _verified(demo, run, expected=None)
    name = attachment_path(before.sha256)
    path = demo.root / name
    path.chmod(0o644)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    path.chmod(0o444)
    screen.note(f"chmod u+w, one bit of the last byte flipped, chmod u-w: {name[:36]}...")
    after = await _verified(demo, run, expected="hash_mismatch")
    screen.line(f"  expected {after.sha256}")
    screen.line(f"  found    {after.actual_sha256}")
    return name


async def _verified(demo: Demo, run: RunEvent, *, expected: str | None) -> VerifiedAttachment:
    assert run.run_id is not None
    answer = await demo.client.verify_attachments(run.run_id)
    demo.screen.answer("GET", f"/{run.run_id}/attachments/verify", "200 OK")
    (found,) = answer.verification.results
    shown = f"{found.filename}, {found.size_bytes:,} bytes: {found.error or 'as it was written'}"
    demo.screen.line(f"  {shown}", "green" if found.ok else "bold red")
    expect(found.error == expected, f"{found.filename}: found {found.error}, not {expected}.")
    return found


async def show_recovery(demo: Demo, run: RunEvent) -> None:
    """Delete an artifact, let its request come again, restore it, and redrive the dead letter."""
    assert run.artifact_path is not None
    screen, path = demo.screen, demo.root / run.artifact_path
    screen.chapter("An artifact is deleted, and restored from the topic with the same hash")
    path.unlink()
    screen.command(f"rm {run.artifact_path}")
    request = demo_requests()[0]
    event = await demo.runs.event_of(await demo.runs.publish_raw(request.key, request.value))
    assert event.error is not None
    code = event.error.code
    screen.line(f"  its request comes again: {event.outcome}, {code}", "bold red")
    screen.command(f"rmos replay restore --run-id {run.run_id}")
    await restore(demo.settings, Selection(run_id=run.run_id), lambda _finding: None)
    screen.line(f"  {hash_of(path)}  restored")
    screen.line(f"  {run.artifact_sha256}  as the event said")
    expect(hash_of(path) == run.artifact_sha256, f"{path} came back with another hash.")
    screen.command(f"rmos dead-letters redrive --code {code}")
    wanted = DeadLetterFilter(codes=frozenset({code}))
    (result,) = [each async for each in redrive(demo.settings, wanted)]
    assert result.redriven_as is not None
    event = await demo.runs.event_of(result.redriven_as)
    screen.line(f"  {result.letter.identity} is now {result.redriven_as}: {event.outcome}", "green")
    screen.note("a duplicate is a success: the artifact is there, and may_cut says so again")


async def show_migration(demo: Demo) -> None:
    """Write the file of an older store, carry its rows over, and compare each by hash."""
    screen = demo.screen
    screen.chapter("Three rows of an older store are carried over, and verified")
    path = demo.root.parent / "runs.json"
    path.write_text(json.dumps(_v1_rows(), indent=2))
    source = open_source(path, None)
    screen.command("rmos migrate run --from runs.json")
    result = await migrate_into_store(
        demo.settings, source, MigrationOptions(), lambda row: None, no_progress
    )
    for name in ("before", "after"):
        counts = sorted(result.counts[f"risks_{name}"].items())
        shown = ", ".join(f"{count} {risk}" for risk, count in counts)
        screen.line(f"  risk {name:<6}: {shown}")
    for sentence in result.sentences():
        screen.line(f"  {sentence}")
    screen.note("history keeps the status that was recorded; may_cut is false for all of it")
    screen.command("rmos migrate verify --from runs.json")
    differences = list(verify_migration(source, demo.root, backup_dir=None, progress=no_progress))
    screen.line(f"  {len(source.rows)} rows compared, {len(differences)} differences", "green")
    expect(not differences, f"The migrated rows differ from the older store: {differences}.")


def _v1_rows() -> dict[str, Any]:
    """Return rows as v1 wrote them: the verdict deep in the evaluation, where v1 missed it."""
    blocked = {"risk_level": "UNKNOWN", "block_reason": "Unsupported mode: unknown"}
    shared = {
        "created_at_utc": "2025-11-03T09:12:44.501200+00:00",
        "event_type": "approval",
        "workflow_mode": "router",
        "tool_id": "router:endmill_6mm",
        "request_hash": "0" * 64,
    }
    return {
        run_id: {"run_id": run_id, "status": status, **shared, "feasibility": {"safety": safety}}
        for run_id, status, safety in (
            ("run_v1_green", "OK", {"risk_level": "GREEN", "score": 94.0}),
            ("run_v1_unknown", "BLOCKED", blocked),
            ("run_v1_unevaluated", "OK", {}),
        )
    }


def show_evidence(demo: Demo, run: RunEvent) -> None:
    """Write the evidence about a run, and let the bare Python check it."""
    assert run.run_id is not None
    screen, folder = demo.screen, demo.root.parent
    screen.chapter("Evidence about the GREEN one, for somebody who trusts nobody")
    screen.command(f"rmos evidence {run.run_id}")
    bundle = folder / f"evidence-{run.run_id}.zip"
    with (
        opened_logs(demo.settings, None) as logs,
        closing(open_reader(demo.root)) as reader,
    ):
        found = gather_evidence(reader, logs, run.run_id)
        write_evidence(bundle, found, reader.attachments)
    screen.note(f"{bundle.stat().st_size:,} bytes: artifact, leaf, proof, page, verifier")
    verifier = files("pipeline.evidence.verifier") / "verify.py"
    (folder / "verify.py").write_bytes(verifier.read_bytes())
    screen.command(f'python3 -I -S verify.py {bundle.name} --key "$VKEY"')
    command = ["-I", "-S", "verify.py", bundle.name, "--key", str(found.keys[0])]
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, check=False, capture_output=True, text=True
    )
    for line in (done.stdout + done.stderr).splitlines():
        screen.line(f"  {line}")
    expect(done.returncode == 0, f"The evidence was refused with status {done.returncode}.")
