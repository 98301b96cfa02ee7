"""The chapters of the demo, in order, over one broker, store and API."""

import asyncio

from pipeline.app.advise import advise_worker
from pipeline.app.audit import audit_worker
from pipeline.app.http import api_server
from pipeline.app.local import local_broker, prepare_local
from pipeline.app.persist import persist_worker
from pipeline.broker.publisher import RunPublisher
from pipeline.cli.broker import starting
from pipeline.cli.demo import proofs, runs
from pipeline.client import RunsClient
from pipeline.settings import Settings


async def run_demo(settings: Settings, screen: runs.Screen) -> None:
    """Start everything, show all chapters, stop everything.

    Raises:
        RmosError: A part could not start, or something is not as the demo shows it.
    """
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
                await _show_chapters(runs.Demo(settings, screen, publisher, client))
                screen.chapter("Stop")


async def _show_chapters(demo: runs.Demo) -> None:
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
