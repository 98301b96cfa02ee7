"""`rmos demo`: the whole story, with a real broker and a real disk, in a temporary folder."""

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipeline.app import local_broker, persist_worker, prepare_local, run_service
from pipeline.broker.publisher import RunPublisher
from pipeline.cli.demo_requests import DemoRequest, demo_requests
from pipeline.cli.terminal import escaped
from pipeline.core.hashing import sha256_of_bytes
from pipeline.errors import IntegrityError
from pipeline.logs import configure_logging
from pipeline.settings import Settings, read_settings
from schemas.run_event import RunEvent

WIDTH = 100
_STATUS_STYLES = {"OK": "green", "BLOCKED": "red", "ERROR": "red"}


def demo() -> None:
    """Show what becomes of run requests: real broker, real files, real hashes; asks nothing."""
    console = Console(highlight=False, width=WIDTH)
    folder = Path(tempfile.mkdtemp(prefix="rmos-demo-"))
    settings = read_settings(data_dir=folder, broker_port=0, log_level="error")
    configure_logging(settings)
    try:
        run_service(_story(settings, console))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    console.print("\nEverything was stopped and the temporary folder removed.")


async def _story(settings: Settings, console: Console) -> None:
    _head(console, 1, "A broker, a store and a worker")

    def tell(what: str) -> None:
        console.print(f"  {escaped(what)}", style="dim")

    async with local_broker(settings, tell) as broker:
        settings = settings.model_copy(update={"bootstrap_servers": broker.bootstrap_servers})
        await prepare_local(settings, broker, tell)
        async with persist_worker(settings), RunPublisher(settings) as publisher:
            tell(f"Apache Kafka at {broker.bootstrap_servers}, one persist worker")
            events = await _publish(publisher, console)
            _show_artifact(settings.data_dir, events[0], console)
            _check_hash(settings.data_dir, events[0], console)
            _show_files(settings.data_dir, console)
            _head(console, 6, "Stop")


async def _publish(publisher: RunPublisher, console: Console) -> list[RunEvent]:
    _head(console, 2, "A CAM system publishes eight requests; what became of each")
    events = []
    table = Table("request", "outcome", "status", "may cut", "why", width=WIDTH)
    for request in demo_requests():
        receipt = await publisher.send_raw(request.key, request.value)
        event = await receipt.event()
        events.append(event)
        table.add_row(*_row(request, event))
    console.print(table)
    return events


def _row(request: DemoRequest, event: RunEvent) -> list[str]:
    style = _STATUS_STYLES.get(event.status or "", "red")
    why = event.error.code if event.error is not None else event.block_reason or ""
    return [
        request.title,
        event.outcome,
        f"[{style}]{event.status or '-'}[/]",
        "[bold green]yes[/]" if event.may_cut else "no",
        escaped(why),
    ]


def _show_artifact(root: Path, event: RunEvent, console: Console) -> None:
    assert event.artifact_path is not None
    _head(console, 3, f"One artifact: {event.artifact_path}")
    document = json.loads((root / event.artifact_path).read_bytes())
    console.print(escaped(json.dumps(document, indent=2, ensure_ascii=False)), style="dim")


def _check_hash(root: Path, event: RunEvent, console: Console) -> None:
    assert event.artifact_path is not None
    _head(console, 4, "Its hash, checked without this program")
    program = shutil.which("sha256sum")
    if program is None:
        found = sha256_of_bytes((root / event.artifact_path).read_bytes())
        console.print("  there is no sha256sum on this machine; Python's hashlib says", style="dim")
    else:
        console.print(f"  $ sha256sum {event.artifact_path}", style="bold")
        done = subprocess.run(
            [program, event.artifact_path], cwd=root, check=True, capture_output=True, text=True
        )
        found = done.stdout.split()[0]
    console.print(f"  {found}")
    console.print(f"  {event.artifact_sha256}  as the event says")
    if found != event.artifact_sha256:
        message = f"{event.artifact_path} has another hash than its event says."
        raise IntegrityError(message)


def _show_files(root: Path, console: Console) -> None:
    _head(console, 5, "Everything that was written: each file once, read-only")
    for folder in ("runs", "attachments", "quarantine"):
        for path in sorted((root / folder).rglob("*")):
            if path.is_file():
                mode = path.stat().st_mode & 0o777
                console.print(
                    f"  {mode:04o} {path.stat().st_size:>9,}  {path.relative_to(root)}",
                    soft_wrap=True,
                )


def _head(console: Console, number: int, title: str) -> None:
    console.print(f"\n[bold]{number}. {escaped(title)}[/]")
