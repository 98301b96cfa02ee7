"""`rmos demo`: a tour with a real broker and a real disk, in a temporary folder."""

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pipeline.cli.demo.runs import Demo, Screen
    from pipeline.settings import Settings


def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the page with its runs open until Ctrl-C.")
    ] = False,
) -> None:
    """Show what becomes of run requests, on a real broker and a real disk; no input is needed."""
    from pipeline.app.process import run_service
    from pipeline.cli.demo.runs import Screen
    from pipeline.logs import configure_logging
    from pipeline.settings import read_settings

    screen = Screen()
    folder = Path(tempfile.mkdtemp(prefix="rmos-demo-"))
    settings = read_settings(
        data_dir=folder / "store",
        ledger_key_file=folder / "ledger-key.pem",
        broker_port=0,
        api_host="127.0.0.1",
        api_port=0,
        log_level="error",
    ).model_copy(update={"api_tokens_file": None, "ledger_enabled": True})
    configure_logging(settings)
    try:
        run_service(_run_demo(settings, screen, keep=keep))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    screen.line("")
    screen.line("Everything was stopped and the temporary folder removed.")


async def _run_demo(settings: "Settings", screen: "Screen", *, keep: bool) -> None:
    """Start everything, show all chapters, stop everything.

    Raises:
        RmosError: A part could not start, or something is not as the demo shows it.
    """
    from pipeline.app.advise import advise_worker
    from pipeline.app.audit import audit_worker
    from pipeline.app.http import api_server
    from pipeline.app.local import local_broker, prepare_local
    from pipeline.app.persist import persist_worker
    from pipeline.broker.publisher import RunPublisher
    from pipeline.cli.broker import starting
    from pipeline.cli.demo.runs import Demo
    from pipeline.client import RunsClient

    screen.chapter("A broker, a store, three workers and the API")
    with starting(screen.note) as report:
        async with local_broker(settings, report) as broker:
            settings = settings.model_copy(update={"bootstrap_servers": broker.bootstrap_servers})
            for line in await prepare_local(settings, broker, report):
                screen.note(line)
            screen.note(f"Apache Kafka at {broker.bootstrap_servers}")
            async with (
                persist_worker(settings) as persist,
                advise_worker(settings) as advise,
                audit_worker(settings) as audit,
                api_server(settings, [persist, advise, audit]) as server,
                RunPublisher(settings) as publisher,
                RunsClient(f"http://{server.address}") as client,
            ):
                workers = "workers to persist, advise and audit"
                screen.note(f"{workers}, the API at http://{server.address}")
                later = "" if keep else "; with --keep it stays open at the end"
                screen.note(f"the page at http://{server.address}/{later}")
                await _show_chapters(Demo(settings, screen, publisher, client))
                if keep:
                    faults = (*persist.faults, *advise.faults, *audit.faults, server.fault)
                    await _keep_open(settings, screen, server.address, *faults)
                screen.chapter("Stop")


async def _keep_open(
    settings: "Settings", screen: "Screen", address: str, *faults: asyncio.Future[None]
) -> None:
    """Leave everything running until a signal, or until a part of it cannot go on."""
    from pipeline.app.process import stop_on_signals, until_stopped

    async with stop_on_signals(settings) as stop:
        screen.chapter("The page, for a look")
        screen.line(f"  http://{address}/")
        screen.note("Ctrl-C stops everything and removes the folder")
        await until_stopped(stop, *faults)


async def _show_chapters(demo: "Demo") -> None:
    from pipeline.cli.demo import proofs, runs

    green, yellow, red = (await runs.show_outcomes(demo))[:3]
    runs.show_artifact(demo, green)
    runs.show_files(demo)
    await runs.show_advisory(demo, red)
    await runs.show_refusal(demo)
    await runs.show_comparison(demo, green, yellow)
    everything = "An audit of everything: each byte, each leaf, each signature"
    await proofs.show_audit(demo, everything, "demo-clean", [])
    changed = await proofs.show_flipped_byte(demo, yellow)
    await proofs.show_audit(demo, "The audit names the file", "demo-changed", [changed])
    await proofs.show_recovery(demo, green)
    await proofs.show_migration(demo)
    await asyncio.to_thread(proofs.show_evidence, demo, green)
