"""The conditions for a start in v1 mode, and the offsets where the group begins.

The v2 store need not be usable. Where it can be read all the same, it must be that of this broker,
and its epoch gives events the ids that it will give them when it publishes the same records again.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import structlog

from pipeline.broker.admin.groups import (
    CommittedOffset,
    commit_offsets,
    committed_offsets,
    group_members,
)
from pipeline.broker.admin.topics import partition_offsets
from pipeline.broker.connection import describe_cluster
from pipeline.broker.reading.lost_offsets import lost_offsets
from pipeline.consumers.engine.topic_identity import current_topic_id
from pipeline.consumers.start.checks import Start, StartOffset, check_topics
from pipeline.core.record import Partition
from pipeline.disk.store_identity import check_identity, read_store
from pipeline.errors import RefusedError, StoreError, StoreNotReadyError
from pipeline.legacy.v1.file import V1Store
from pipeline.legacy.v1_mode.outcome import epoch_of_cluster
from pipeline.settings import Settings

_log = structlog.get_logger(__name__)

Offsets = Mapping[Partition, int]


async def check_v1_start(
    settings: Settings, *, writes: Iterable[str], accept_loss: bool
) -> tuple[str, int, Start]:
    """Check that a worker may consume into the v1 store, and put its group where it begins.

    Args:
        settings: Which broker, prefix and file.
        writes: The topics that must be there besides.
        accept_loss: The operator accepts that earlier runs are not in the file, or that records
            are gone.

    Returns:
        The cluster id of the broker, the epoch of its events, and what was found.

    Raises:
        StoreNotReadyError: File, log and group do not fit.
        StoreError: The file cannot be read.
        TopicsError: A topic is missing or has other partitions.
        BrokerError: No broker answers.
    """
    cluster_id = await describe_cluster(settings)
    epoch = check_v2_store(settings, cluster_id)
    if epoch is None:
        _log.warning("the v2 store cannot be read: events get ids of their own")
        epoch = epoch_of_cluster(cluster_id)
    topics = settings.topics
    needed = frozenset({topics.run_requests, *writes})
    await check_topics(settings, set(needed))
    topic_id = await current_topic_id(settings, topics.run_requests)
    starts = await _starts(settings)
    _refuse_unfit_file(settings.run_store_path, starts, accept_loss=accept_loss)
    offsets = await partition_offsets(settings, [topics.run_requests])
    missed = {
        place: lost_offsets(*place, starts.get(place, 0), offsets[place])
        for place in sorted(offsets)
    }
    lost = {place: found for place, found in missed.items() if found is not None}
    for each in lost.values():
        each.report(topics.persist_v1_group, accepted=accept_loss)
    if lost and not accept_loss:
        raise StoreNotReadyError(
            f"{'; '.join(map(str, lost.values()))}: to go on all the same, start rmos worker "
            "persist --accept-loss once."
        )
    await _begin(settings, starts)
    if await group_members(settings, topics.persist_group):
        _log.warning("workers of the v2 store still run: stop them", group=topics.persist_group)
    places = {
        place[1]: StartOffset(log.beginning, starts.get(place) if place in lost else None)
        for place, log in sorted(offsets.items())[: settings.request_partitions]
    }
    # Rows of the v1 store do not record their offsets.
    return cluster_id, epoch, Start(places, topic_id, needed, None)


def check_v2_store(settings: Settings, cluster_id: str) -> int | None:
    """Return the epoch of the v2 store; None where it cannot be read, which is no fault here.

    Raises:
        StoreNotReadyError: It can be read and is of another broker or prefix.
    """
    root = settings.data_dir
    try:
        identity = read_store(root)
    except (StoreError, OSError):
        return None
    check_identity(identity, root, cluster_id=cluster_id, prefix=settings.prefix)
    return identity.epoch


async def _starts(settings: Settings) -> Offsets:
    """Return where the group begins: where it or the group of the v2 store stands, the later."""
    topics = settings.topics
    starts: dict[Partition, int] = {}
    for group in (topics.persist_group, topics.persist_v1_group):
        committed = await committed_offsets(settings, group, [topics.run_requests])
        for place, offset in committed.items():
            starts[place] = max(offset, starts.get(place, 0))
    return starts


async def _begin(settings: Settings, starts: Offsets) -> None:
    """Put the group where it begins, unless another worker of it has begun."""
    group = settings.topics.persist_v1_group
    offsets = {place: CommittedOffset(offset, "") for place, offset in starts.items()}
    try:
        await commit_offsets(settings, group, offsets)
    except RefusedError:
        _log.info("another worker of the group has begun", group=group)


def _refuse_unfit_file(path: Path, starts: Offsets, *, accept_loss: bool) -> None:
    """Refuse a damaged file, and a new one after others: no volume may be missing unnoticed.

    Where the operator accepts that, a file without rows is made.

    Raises:
        StoreNotReadyError: Its folder is not there, or there is no file and runs were consumed.
        StoreError: The file cannot be read.
    """
    store = V1Store(path)
    if not store.path.parent.is_dir():
        raise StoreNotReadyError(
            f"There is no folder {store.path.parent} for the v1 store: set RMOS_RUN_STORE_PATH, "
            "or mount its volume."
        )
    store.texts()
    if store.exists() or not any(starts.values()):
        return
    if accept_loss:
        # Else the next start, before any run has come, would need the option again.
        store.make()
        return
    raise StoreNotReadyError(
        f"There is no v1 store at {store.path}, and runs have been consumed before: set "
        "RMOS_RUN_STORE_PATH, or make it from the v2 store by rmos migrate rollback; to begin "
        "without the earlier runs, start rmos worker persist --accept-loss once."
    )
