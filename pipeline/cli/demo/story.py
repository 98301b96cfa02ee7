"""The chapters of the demo, in order, over one broker, store and API."""

import asyncio

from pipeline.app import (
    advise_worker,
    api_server,
    audit_worker,
    local_broker,
    persist_worker,
    prepare_local,
)
from pipeline.broker.publisher import AdvisoryPublisher, RunPublisher
from pipeline.cli.broker import starting
from pipeline.cli.demo.proofs import (
    show_audit_of_change,
    show_clean_audit,
    show_evidence,
    show_migration,
    show_recovery,
    show_verification,
)
from pipeline.cli.demo.requests import demo_requests
from pipeline.cli.demo.runs import (
    check_hash,
    show_advisory,
    show_artifact,
    show_comparison,
    show_files,
    show_outcomes,
    show_refusal,
)
from pipeline.cli.demo.screen import DemoApi, Screen
from pipeline.settings import Settings


async def tell_story(settings: Settings, screen: Screen) -> None:
    """Start everything, tell all chapters, stop everything.

    Raises:
        RmosError: A part could not start, or something is not as the story says.
    """
    screen.chapter("A broker, a store, three workers and the API")
    with starting(screen.note) as tell:
        async with local_broker(settings, tell) as broker:
            settings = settings.model_copy(update={"bootstrap_servers": broker.bootstrap_servers})
            for line in await prepare_local(settings, broker, tell):
                screen.note(line)
            screen.note(f"Apache Kafka at {broker.bootstrap_servers}")
            async with (
                persist_worker(settings) as persist,
                advise_worker(settings) as advise,
                audit_worker(settings) as audit,
                api_server(settings, [persist, advise, audit]) as server,
            ):
                screen.note(
                    f"workers to persist, advise and audit, the API at http://{server.address}"
                )
                await _tell_chapters(settings, DemoApi(server.address, screen), screen)
                screen.chapter("Stop")


async def _tell_chapters(settings: Settings, api: DemoApi, screen: Screen) -> None:
    root = settings.data_dir
    async with RunPublisher(settings) as publisher:
        green, yellow, red = (await show_outcomes(publisher, screen))[:3]
    show_artifact(root, green, screen)
    check_hash(root, green, screen)
    show_files(root, screen)
    async with AdvisoryPublisher(settings) as advisories:
        await show_advisory(root, red, advisories, api)
    await show_refusal(root, api)
    await show_comparison(green, yellow, api)
    await show_clean_audit(settings, screen)
    changed = await show_verification(root, yellow, api)
    await show_audit_of_change(settings, changed, screen)
    await show_recovery(settings, green, demo_requests()[0], screen)
    await show_migration(settings, root.parent, screen)
    await asyncio.to_thread(show_evidence, settings, green, root.parent, screen)
