"""The chapters of the demo about runs: published, stored, explained, refused, compared."""

import hashlib
import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.broker.publisher import AdvisoryPublisher, RunPublisher
from pipeline.cli.demo.requests import CREATED_AT_UTC, demo_requests, red_request
from pipeline.cli.runs import print_diff
from pipeline.client import RunsClient
from pipeline.core.visible_text import visible, visible_json
from pipeline.errors import IntegrityError, RefusedError
from pipeline.settings import Settings
from schemas.run_event import RunEvent

_WIDTH = 100


class Screen:
    """Numbered chapters on standard output."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, width=_WIDTH)
        self._chapters = 0

    def chapter(self, title: str) -> None:
        """Begin the next chapter."""
        self._chapters += 1
        self.line("")
        self.line(f"{self._chapters}. {title}", "bold")

    def line(self, text: str, style: str = "") -> None:
        """Print one line, whole also where it is longer than the screen."""
        self.console.print(Text(visible(text), style), soft_wrap=True)

    def note(self, text: str) -> None:
        """Print what is being done."""
        self.line(f"  {text}", "dim")

    def command(self, text: str) -> None:
        """Print what is run."""
        self.line(f"  $ {text}", "bold")

    def answer(self, method: str, path: str, status: str) -> None:
        """Print what was asked over HTTP, and the status of the answer."""
        self.line(f"  {method} /api/rmos/runs{path}  ->  {status}", "bold")


def expect(holds: bool, otherwise: str) -> None:  # reads like an assertion
    """Check that something is as the demo shows it.

    Raises:
        IntegrityError: It is not.
    """
    if not holds:
        raise IntegrityError(otherwise)


@dataclass(frozen=True, slots=True)
class Demo:
    """What the chapters share.

    Attributes:
        settings: Those of the broker and the store, which run.
        screen: Where they print.
        runs: Connected.
        client: Of the API, which runs.
    """

    settings: Settings
    screen: Screen
    runs: RunPublisher
    client: RunsClient

    @property
    def root(self) -> Path:
        """The folder of the store."""
        return self.settings.data_dir


async def show_outcomes(demo: Demo) -> list[RunEvent]:
    """Publish the requests one after the other; return their events in this order."""
    demo.screen.chapter("A CAM system publishes eight requests; what became of each")
    events = []
    table = Table("request", "outcome", "status", "may cut", "why", width=_WIDTH)
    for request in demo_requests():
        receipt = await demo.runs.send_raw(request.key, request.value)
        event = await receipt.event()
        events.append(event)
        table.add_row(
            request.title,
            event.outcome,
            Text(event.status or "-", "green" if event.status == "OK" else "red"),
            Text("yes", "bold green") if event.may_cut else "no",
            Text(visible(event.error.code if event.error else event.block_reason or "")),
        )
    demo.screen.console.print(table)
    return events


def show_artifact(demo: Demo, run: RunEvent) -> None:
    """Print an artifact, and let a program that knows nothing of us hash it."""
    assert run.artifact_path is not None
    screen, path = demo.screen, demo.root / run.artifact_path
    screen.chapter(f"One artifact: {run.artifact_path}")
    document = json.dumps(json.loads(path.read_bytes()), indent=2, ensure_ascii=False)
    screen.console.print(Text(visible_json(document), "dim"))
    screen.chapter("Its hash, checked without this program")
    program = shutil.which("sha256sum")
    if program is None:
        screen.note("there is no sha256sum on this machine; Python's hashlib says")
        found = hash_of(path)
    else:
        screen.command(f"sha256sum {run.artifact_path}")
        found = subprocess.check_output([program, path], text=True).split()[0]
    screen.line(f"  {found}")
    screen.line(f"  {run.artifact_sha256}  as the event says")
    expect(found == run.artifact_sha256, f"{path} has another hash than its event says.")


def hash_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def show_files(demo: Demo) -> None:
    """Print mode, size and path of every file."""
    demo.screen.chapter("Everything that was written: each file once, read-only")
    for folder in ("runs", "attachments", "quarantine"):
        for path in sorted((demo.root / folder).rglob("*")):
            if path.is_file():
                found = path.stat()
                shown = f"{found.st_mode & 0o777:04o} {found.st_size:>9,}"
                demo.screen.line(f"  {shown}  {path.relative_to(demo.root)}")


async def show_advisory(demo: Demo, run: RunEvent) -> None:
    """Publish an explanation of a run, and read it back over HTTP."""
    assert run.run_id is not None
    assert run.artifact_path is not None
    screen = demo.screen
    screen.chapter("An explainer engine publishes an advisory about the RED one")
    request = {
        "run_id": run.run_id,
        "advisory_id": "adv_demo",
        "created_at_utc": CREATED_AT_UTC,
        "kind": "explanation",
        "engine_id": "demo_explainer",
        "engine_version": "1",
        "title": "Why this pocket was not cut",
        "content_text": "The roughing depth is not below the surface: there is nothing to cut.\n",
    }
    async with AdvisoryPublisher(demo.settings) as advisories:
        event = await advisories.publish_and_wait(request)
    screen.line(f"  {event.outcome}: {event.link_path}")
    view = await demo.client.get_run(run.run_id)
    screen.answer("GET", f"/{run.run_id}", "200 OK")
    screen.line(f"  explanation_status: {view.explanation_status}")
    for each in view.advisory_inputs:
        words = (each[name] for name in ("advisory_id", "kind", "engine_id", "title"))
        screen.line("  " + "  ".join(words))
    unchanged = hash_of(demo.root / run.artifact_path) == run.artifact_sha256
    expect(unchanged, f"{run.artifact_path} has other bytes than before its advisory.")
    screen.note("the artifact has the same bytes as before: an advisory never changes its run")


async def show_refusal(demo: Demo) -> None:
    """POST a RED request, and look at what is left of it."""
    screen = demo.screen
    screen.chapter("A RED request over HTTP: refused, and kept all the same")
    try:
        await demo.client.submit(red_request("run_demo_http"))
    except RefusedError as refused:
        answer = refused.details
        screen.answer("POST", "", "409 Conflict")
        screen.line(f"  {answer['error']}: {answer['message']}")
        screen.line(f"  may_cut: {str(answer['may_cut']).lower()}")
        kept = demo.root / answer["artifact_path"]
        screen.line(f"  kept: {kept.stat().st_size:,} bytes, {answer['artifact_path']}")
    else:
        expect(holds=False, otherwise="A RED request was not refused.")


async def show_comparison(demo: Demo, a: RunEvent, b: RunEvent) -> None:
    """Print how run `b` differs from run `a`."""
    assert a.run_id is not None
    assert b.run_id is not None
    demo.screen.chapter("Two runs compared: GREEN and YELLOW")
    found = await demo.client.diff(a.run_id, b.run_id)
    demo.screen.answer("GET", f"/diff?a={a.run_id}&b={b.run_id}", "200 OK")
    print_diff(found.model_dump(mode="json", exclude_unset=True), demo.screen.console)
