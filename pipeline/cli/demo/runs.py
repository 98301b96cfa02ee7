"""The chapter of the run requests: publish each, and show what became of it.

The chapter of the advisories: one is published, and appears beside a file that stays.

The chapter of the diff: how one run differs from another.

The chapters of the disk: an artifact, its hash, and every file that was written.

The chapter of the refused POST: 409 for the client, and the artifact is kept all the same.
"""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from pipeline.broker.publisher import AdvisoryPublisher, RunPublisher
from pipeline.cli.demo.requests import CREATED_AT_UTC, DemoRequest, demo_requests, red_request
from pipeline.cli.demo.screen import WIDTH, DemoApi, Screen
from pipeline.cli.views.diff import print_diff
from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.visible_text import visible
from pipeline.errors import IntegrityError
from schemas.run_event import RunEvent

_STATUS_STYLES = {"OK": "green", "BLOCKED": "red", "ERROR": "red"}


async def show_outcomes(publisher: RunPublisher, screen: Screen) -> list[RunEvent]:
    """Publish the requests one after the other; return their events in this order.

    Raises:
        BrokerError: One was not judged in time.
    """
    screen.chapter("A CAM system publishes eight requests; what became of each")
    events = []
    table = Table("request", "outcome", "status", "may cut", "why", width=WIDTH)
    for request in demo_requests():
        receipt = await publisher.send_raw(request.key, request.value)
        event = await receipt.event()
        events.append(event)
        table.add_row(*_row(request, event))
    screen.table(table)
    return events


def _row(request: DemoRequest, event: RunEvent) -> list[str | Text]:
    style = _STATUS_STYLES.get(event.status or "", "red")
    why = event.error.code if event.error is not None else event.block_reason or ""
    return [
        request.title,
        event.outcome,
        Text(event.status or "-", style),
        Text("yes", "bold green") if event.may_cut else "no",
        Text(visible(why)),
    ]


async def show_advisory(
    root: Path, run: RunEvent, publisher: AdvisoryPublisher, api: DemoApi
) -> None:
    """Publish an explanation of a run, and read it back over HTTP.

    Raises:
        IntegrityError: The artifact changed by it.
        BrokerError: It was not linked in time.
        ServiceError: The API said something else.
    """
    assert run.run_id is not None
    screen = api.screen
    screen.chapter("An explainer engine publishes an advisory about the RED one")
    event = await publisher.publish_and_wait(_advisory(run.run_id))
    screen.line(f"  {event.outcome}: {event.link_path}")
    view = (await api.get(f"/{run.run_id}")).document
    screen.line(f"  explanation_status: {view['explanation_status']}")
    for advisory in view["advisory_inputs"]:
        words = (advisory[name] for name in ("advisory_id", "kind", "engine_id", "title"))
        screen.line("  " + "  ".join(words))
    _check_unchanged(root, run)
    screen.note("the artifact has the same bytes as before: an advisory never changes its run")


def _advisory(run_id: str) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "advisory_id": "adv_demo",
        "created_at_utc": CREATED_AT_UTC,
        "kind": "explanation",
        "engine_id": "demo_explainer",
        "engine_version": "1",
        "title": "Why this pocket was not cut",
        "content_text": "The roughing depth is not below the surface: there is nothing to cut.\n",
    }


def _check_unchanged(root: Path, run: RunEvent) -> None:
    assert run.artifact_path is not None
    if sha256_of_bytes((root / run.artifact_path).read_bytes()) != run.artifact_sha256:
        message = f"{run.artifact_path} has other bytes than before its advisory."
        raise IntegrityError(message)


async def show_comparison(a: RunEvent, b: RunEvent, api: DemoApi) -> None:
    """Print how run `b` differs from run `a`.

    Raises:
        ServiceError: The API said something else.
    """
    screen = api.screen
    screen.chapter("Two runs compared: GREEN and YELLOW")
    found = await api.get(f"/diff?a={a.run_id}&b={b.run_id}")
    print_diff(found.document, screen.console)


def show_artifact(root: Path, event: RunEvent, screen: Screen) -> None:
    """Print an artifact in a form for reading; its file is one line."""
    assert event.artifact_path is not None
    screen.chapter(f"One artifact: {event.artifact_path}")
    screen.document(json.loads((root / event.artifact_path).read_bytes()))


def check_hash(root: Path, event: RunEvent, screen: Screen) -> None:
    """Let a program that knows nothing of us hash an artifact.

    Raises:
        IntegrityError: It has another hash than its event says.
    """
    assert event.artifact_path is not None
    screen.chapter("Its hash, checked without this program")
    found = _found_hash(root, event.artifact_path, screen)
    screen.line(f"  {found}")
    screen.line(f"  {event.artifact_sha256}  as the event says")
    if found != event.artifact_sha256:
        message = f"{event.artifact_path} has another hash than its event says."
        raise IntegrityError(message)


def _found_hash(root: Path, path: str, screen: Screen) -> str:
    program = shutil.which("sha256sum")
    if program is None:
        screen.note("there is no sha256sum on this machine; Python's hashlib says")
        return sha256_of_bytes((root / path).read_bytes())
    screen.command(f"sha256sum {path}")
    done = subprocess.run([program, path], cwd=root, check=True, capture_output=True, text=True)
    return done.stdout.split()[0]


def show_files(root: Path, screen: Screen) -> None:
    """Print mode, size and path of every file."""
    screen.chapter("Everything that was written: each file once, read-only")
    for folder in ("runs", "attachments", "quarantine"):
        for path in sorted((root / folder).rglob("*")):
            if path.is_file():
                mode = path.stat().st_mode & 0o777
                size = path.stat().st_size
                screen.line(f"  {mode:04o} {size:>9,}  {path.relative_to(root)}")


async def show_refusal(root: Path, api: DemoApi) -> None:
    """POST a RED request, and look at what is left of it.

    Raises:
        IntegrityError: It was refused and not kept.
        ServiceError: The API said something else.
    """
    screen = api.screen
    screen.chapter("A RED request over HTTP: refused, and kept all the same")
    refused = (await api.post(red_request("run_demo_http"), expected=409)).document
    screen.line(f"  {refused['error']}: {refused['message']}")
    screen.line(f"  may_cut: {str(refused['may_cut']).lower()}")
    path = root / refused["artifact_path"]
    if not path.is_file():
        message = f"{refused['artifact_path']} is not there."
        raise IntegrityError(message)
    screen.line(f"  kept: {path.stat().st_size:,} bytes, {refused['artifact_path']}")
