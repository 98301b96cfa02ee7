"""The local broker within this process, and the preparation of its store and topics."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pipeline.broker.admin.topics import apply_topics
from pipeline.broker.local.broker import LocalBroker
from pipeline.broker.local.runtime import ReportStep
from pipeline.core.store.identity import STORE_FILE
from pipeline.disk.owner import refuse_as_root
from pipeline.disk.store_identity import create_store
from pipeline.errors import BrokerError, TopicsError
from pipeline.recovery.rebuild.ledger import build_logs, find_missing_leaves
from pipeline.settings import Settings
from pipeline.storage.ledger_key import init_ledger_key

_WATCH_SECONDS = 0.5


@asynccontextmanager
async def local_broker(settings: Settings, report: ReportStep) -> AsyncIterator[LocalBroker]:
    """Run the local broker for the length of a block.

    Raises:
        BrokerError: It could not start.
    """
    refuse_as_root(settings.data_dir)
    broker = LocalBroker(
        settings.data_dir / "kafka",
        port=settings.broker_port,
        cache_dir=settings.broker_cache_dir,
        on_progress=report,
    )
    starting = asyncio.create_task(asyncio.to_thread(broker.start))
    try:
        await asyncio.shield(starting)
        yield broker
    finally:
        # Where the start is cancelled, its thread goes on until it is signalled.
        broker.give_up()
        await asyncio.wait([starting])
        starting.exception()
        await asyncio.to_thread(broker.stop)


async def prepare_local(settings: Settings, broker: LocalBroker, report: ReportStep) -> list[str]:
    """Make what is missing for a local broker: the store, the ledger's key and the topics.

    Returns:
        Where store and key are, and what to keep: lines for a person.

    Raises:
        StoreError: The folder cannot be a store.
        TopicsError: A topic is there with other settings.
    """
    places = [f"store   {settings.run_store_path}"]
    if settings.runs_v2_enabled:
        places = _prepare_store(settings, broker.cluster_id)
    differences = await apply_topics(settings)
    if differences:
        raise TopicsError(
            f"The topic {differences[0].topic} is not as it must be: rmos topics check shows "
            "what differs."
        )
    if settings.runs_v2_enabled:
        await _complete_logs(settings, report)
    return places


async def _complete_logs(settings: Settings, report: ReportStep) -> None:
    """Build the logs of a store that was written without a ledger, by an older version."""
    missing = await find_missing_leaves(settings)
    missing.refuse_loss()
    if missing.offsets:
        report(f"building the ledger of {missing.offsets:,} records that were consumed before")
        await build_logs(settings, missing)


def _prepare_store(settings: Settings, cluster_id: str) -> list[str]:
    """Make store and key where they are missing; return where they are."""
    is_new = not (settings.data_dir / STORE_FILE).exists()
    if is_new:
        create_store(settings.data_dir, cluster_id=cluster_id, prefix=settings.prefix)
    places = [f"store   {settings.data_dir.resolve()}{' (new)' if is_new else ''}"]
    if settings.ledger_enabled:
        made = init_ledger_key(settings)
        new = "new; " if made.is_new else ""
        places.append(f"key     {made.path} ({new}keep a copy, apart from the store)")
        if made.is_new:
            places.append(f"        {made.key} is its public part, for those who check")
    return places


async def watch(broker: LocalBroker) -> None:
    """Look at the local broker until it has ended by itself.

    Raises:
        BrokerError: It has.
    """
    while broker.is_running():  # noqa: ASYNC110
        await asyncio.sleep(_WATCH_SECONDS)  # a process can only be asked
    status, *lines = (broker.exit_reason() or "stopped").splitlines()
    last = f": {lines[-1]}" if lines else ""
    raise BrokerError(f"The local broker ended by itself ({status}){last}")
