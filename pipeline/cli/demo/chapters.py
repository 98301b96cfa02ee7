"""The chapters of the demo, in order, over one broker, store and API."""

import asyncio

from pipeline.app import (
    advise_worker,
    audit_worker,
    local_broker,
    persist_worker,
    prepare_local,
)
from pipeline.app.http import api_server
from pipeline.broker.publisher import RunPublisher
from pipeline.cli.broker import starting
from pipeline.cli.demo.proofs import (
    show_audit,
    show_evidence,
    show_flipped_byte,
    show_migration,
    show_recovery,
)
from pipeline.cli.demo.runs import (
    Demo,
    show_advisory,
    show_artifact,
    show_comparison,
    show_files,
    show_outcomes,
    show_refusal,
)
from pipeline.cli.demo.screen import Screen
from pipeline.client import RunsClient
from pipeline.settings import Settings


async def run_demo(settings: Settings, screen: Screen) -> None:
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
                await _show_chapters(Demo(settings, screen, publisher, client))
                screen.chapter("Stop")


async def _show_chapters(demo: Demo) -> None:
    green, yellow, red = (await show_outcomes(demo))[:3]
    show_artifact(demo, green)
    show_files(demo)
    await show_advisory(demo, red)
    await show_refusal(demo)
    await show_comparison(demo, green, yellow)
    everything = "An audit of everything: each byte, each leaf, each signature"
    await show_audit(demo, everything, "demo-clean", [])
    changed = await show_flipped_byte(demo, yellow)
    await show_audit(demo, "The audit names the file", "demo-changed", [changed])
    await show_recovery(demo, green)
    await show_migration(demo)
    await asyncio.to_thread(show_evidence, demo, green)
