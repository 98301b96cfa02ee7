"""The conditions for a worker's start: topics, store, log, group and ledger fit together.

A worker that starts over the wrong folder or the wrong broker would write a second truth beside
the first, so each misfit is refused, with nothing committed, and the sentence names the way out.
In this order, with the same numbers in `look_at_start`:

| what is looked at | refused |
|---|---|
| 1. the store's identity and the topics | another cluster, prefix or topic; unusable topics |
| 2. store and ledger against the log's end | records or leaves that the broker has lost |
| 3. ledger against store and group (`ledger_checks`) | no log, a log cut or with a hole |
| 4. group against the log | offsets that are gone, unless the loss is accepted |
| 5. group against the store | records that the store lacks, unless the loss is accepted |
| 6. the log itself | unconsumed records that are gone from its middle, likewise |

Whether the topics of a worker are as its promises need them: at start, and while it runs.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from pipeline import metrics
from pipeline.broker.admin.groups import committed_offsets
from pipeline.broker.admin.topic_promises import BrokenPromise, Consequence, broken_promise
from pipeline.broker.admin.topics import OffsetRange, compare_topics
from pipeline.broker.connection import describe_cluster
from pipeline.broker.reading.log_holes import describe_holes, find_holes
from pipeline.broker.reading.lost_offsets import LostOffsets, lost_offsets
from pipeline.consumers.engine.topic_identity import current_topic_id, refuse_other_topic
from pipeline.consumers.start.ledger_checks import check_ledger
from pipeline.consumers.start.partition_states import (
    PartitionState,
    ReadLog,
    beyond_store,
    is_beyond_store,
    partition_states,
    ways_back,
)
from pipeline.core.record import Partition
from pipeline.core.store.contents import StoreContents
from pipeline.disk.store_identity import check_identity
from pipeline.errors import StoreNotReadyError, TopicsError
from pipeline.settings import Settings
from pipeline.storage.batch_store import BatchStore
from pipeline.storage.store import Store

_log = structlog.get_logger(__name__)

_AT_START = {Consequence.STOPS, Consequence.REFUSED}


async def broken_promises(settings: Settings, needed: set[str]) -> list[BrokenPromise]:
    """Return what is another of the topics `needed` than it must be.

    Raises:
        BrokerError: No broker answers.
    """
    return [
        broken_promise(difference, settings.topics)
        for difference in await compare_topics(settings, needed)
    ]


async def check_topics(settings: Settings, needed: set[str]) -> None:
    """Check the topics `needed`; log what a worker can go on with.

    Raises:
        TopicsError: A topic is missing, or a worker that starts would make it worse.
        BrokerError: No broker answers.
    """
    for each in await broken_promises(settings, needed):
        if each.consequence in _AT_START:
            raise TopicsError(each.sentence)
        log_difference(each)


def log_difference(broken: BrokenPromise) -> None:
    """Log what is another, and what that means."""
    difference = broken.difference
    _log.warning(
        "topic differs",
        topic=difference.topic,
        setting=difference.setting,
        expected=difference.expected,
        found=difference.found,
        means=broken.sentence,
    )


@dataclass(frozen=True, slots=True)
class StartOffset:
    """Where a worker begins in a partition for which the group has no usable offset.

    Attributes:
        begin: The log's first offset, as it was checked.
        given_up: The group's offset, where the log does not hold it and that is accepted.
    """

    begin: int
    given_up: int | None


@dataclass(frozen=True, slots=True)
class Start:
    """What the start check found, and what must still hold while the worker runs.

    Attributes:
        places: Where to begin in each partition.
        topic_id: The id of the request topic; None where the broker gives none.
        needed: The topics that the worker reads and writes.
        kept: Returns before which offset of each partition every record is in the store or was
            given up; None for a store that does not know.
    """

    places: Mapping[int, StartOffset]
    topic_id: str | None
    needed: frozenset[str]
    kept: Callable[[], Mapping[Partition, int]] | None


async def check_start(
    settings: Settings,
    store: BatchStore[Any, Any],
    *,
    topic: str,
    group: str,
    writes: Iterable[str],
    accept_loss: bool,
) -> Start:
    """Check that this worker may consume `topic` into `store` in `group`.

    Args:
        settings: Which broker and prefix.
        store: The opened store.
        topic: The request topic.
        group: The consumer group.
        writes: The topics that must be there besides.
        accept_loss: The operator accepts that the named offsets are not in the store.

    Returns:
        What was found.

    Raises:
        StoreNotReadyError: Store, log, group and ledger do not fit.
        IntegrityError: A log of the ledger is not what was written.
        TopicsError: A topic is missing or has other partitions.
        BrokerError: No broker answers.
    """
    if store.index.fails_over:
        # Else what it has lost would be taken for what the group went past without the store. But
        # not by the offsets of another broker.
        await _check_broker(settings, store.store)
        committed = await committed_offsets(settings, group, [topic])
        await asyncio.to_thread(store.follow_ledger, committed)
    read_log = store.ledger.reader if store.ledger is not None else None
    start, states, accepted = await look_at_start(
        settings,
        store.store,
        read_log,
        topic=topic,
        group=group,
        writes=writes,
        accept_loss=accept_loss,
    )
    _note_accepted(store.store, states, accepted)
    if start.topic_id is not None:
        with store.index.transaction() as transaction:
            transaction.note_topic_id(store.identity.epoch, topic, start.topic_id)
    return start


async def look_at_start(
    settings: Settings,
    store: Store,
    read_log: ReadLog | None,
    *,
    topic: str,
    group: str,
    writes: Iterable[str],
    accept_loss: bool,
) -> tuple[Start, list[PartitionState], set[int]]:
    """Check what `check_start` checks, and note nothing.

    Returns:
        What was found, each partition, and those where a loss is accepted.

    Raises:
        RmosError: As `check_start`.
    """
    await _check_broker(settings, store)  # 1.
    needed = frozenset({topic, *writes})
    await check_topics(settings, set(needed))
    topic_id = await current_topic_id(settings, topic)
    epoch = store.identity.epoch
    refuse_other_topic(topic, store.index.topic_ids(epoch).get(topic), topic_id)
    states = await partition_states(settings, store, read_log, topic=topic, group=group)
    for state in states:
        _refuse_lost_log(state)  # 2.
    # A worker that writes no leaves, as for measuring, has none to look for.
    for state in states if read_log is not None else ():
        await check_ledger(settings, state)  # 3.
    lost = _check_group(states, group, accept_loss=accept_loss)  # 4.
    missed = await _check_store(settings, states, group, accept_loss=accept_loss)  # 5.
    await _check_holes(settings, states, accept_loss=accept_loss)  # 6.
    places = {
        state.partition: StartOffset(
            state.begin, None if state.read_from == state.committed else state.committed
        )
        for state in states
    }
    start = Start(places, topic_id, needed, lambda: store.index.kept_to(epoch))
    return start, states, missed | lost


async def check_audit_start(settings: Settings, store: StoreContents) -> None:
    """Check that this worker may audit a store.

    Less than of other workers: an audit is there to find what is wrong with the rest.

    Raises:
        StoreNotReadyError: It is of another broker or prefix.
        TopicsError: A topic is missing or has other partitions.
        BrokerError: No broker answers.
    """
    await _check_broker(settings, store)
    topics = settings.topics
    needed = {topics.audit_requests, topics.audit_findings, topics.audit_reports}
    await check_topics(settings, {*needed, topics.audit_dead_letters})


async def _check_broker(settings: Settings, store: StoreContents) -> None:
    """Check that the store keeps what comes from this broker and prefix.

    Raises:
        StoreNotReadyError: It is of another.
        BrokerError: No broker answers.
    """
    cluster_id = await describe_cluster(settings)
    check_identity(store.identity, store.name, cluster_id=cluster_id, prefix=settings.prefix)


def _refuse_lost_log(state: PartitionState) -> None:
    """Refuse a log that ends before what was stored of it: its offsets would be used again.

    Raises:
        StoreNotReadyError: It does.
    """
    for reached, holder in ((state.stored, "The store"), (state.logged, "The ledger")):
        if reached > state.end:
            raise StoreNotReadyError(
                f"{holder} has records up to offset {reached} of {state.place}, the log ends "
                f"at {state.end}: the broker has lost records or is another; run rmos store "
                "new-epoch, then start with --accept-loss."
            )


def _check_group(states: list[PartitionState], group: str, *, accept_loss: bool) -> set[int]:
    """Check that the log holds where the group goes on; return the partitions where it does not.

    Raises:
        StoreNotReadyError: It does not, and the loss is not accepted.
    """
    lost: dict[int, LostOffsets] = {}
    for state in states:
        metrics.LOST_OFFSETS.labels(group, state.topic, state.partition).set(0)
        found = lost_offsets(state.topic, state.partition, state.following, state.offsets)
        if found is not None:
            lost[state.partition] = found
            found.report(group, accepted=accept_loss)
    if lost and not accept_loss:
        ways_out = dict.fromkeys(each.way_out for each in lost.values())
        raise StoreNotReadyError(f"{'; '.join(map(str, lost.values()))}; {'; or '.join(ways_out)}.")
    return set(lost)


async def _check_store(
    settings: Settings, states: list[PartitionState], group: str, *, accept_loss: bool
) -> set[int]:
    """Check that the store has what the group has consumed; return the partitions where it has not.

    Raises:
        StoreNotReadyError: The loss is not accepted.
    """
    missed = {}
    for state in states:
        place, committed = state.topic_partition, state.committed or 0
        if await is_beyond_store(
            settings, place, committed=committed, kept=state.kept, log=state.offsets
        ):
            found = beyond_store(place, committed=committed, stored=state.stored)
            missed[state.partition] = found
    if missed and not accept_loss:
        raise StoreNotReadyError(f"{'; '.join(missed.values())}: {ways_back(settings, group)}.")
    for message in missed.values():
        _log.warning("loss accepted", group=group, lost=message)
    return set(missed)


async def _check_holes(
    settings: Settings, states: list[PartitionState], *, accept_loss: bool
) -> None:
    """Report records that are gone from what was consumed, and refuse where they were not.

    Of consumed records only the first MiB is read: leaves and rows decide which was first.

    Raises:
        StoreNotReadyError: Unconsumed records are gone, and the loss is not accepted.
        BrokerError: No broker answers.
    """
    reached = {s.topic_partition: max(s.read_from, s.kept) for s in states}
    logs = {s.topic_partition: s.offsets for s in states}
    before = {place: OffsetRange(log.beginning, reached[place]) for place, log in logs.items()}
    behind = {place: OffsetRange(reached[place], log.end) for place, log in logs.items()}
    for place, holes in (await find_holes(settings, before, peek=True)).items():
        named = describe_holes(place, holes)
        _log.error("records are gone from the log", consumed=True, gone=named)
    # Whole: the worker is about to decide who is first in it.
    found = await find_holes(settings, behind)
    if not found:
        return
    named = "; ".join(describe_holes(place, holes) for place, holes in found.items())
    if not accept_loss:
        raise StoreNotReadyError(
            f"Records are gone from the middle of the log before they were consumed: {named}: have "
            "their producers send them again, then start with --accept-loss."
        )
    _log.warning("loss accepted", gone=named)


def _note_accepted(store: Store, states: list[PartitionState], accepted: set[int]) -> None:
    """Note where the worker goes on, so that what was looked into is not met again."""
    places = {s.topic_partition: s.read_from for s in states}
    passed = [s.topic_partition for s in states if s.stored < (s.committed or 0) <= s.end]
    given_up = [s.topic_partition for s in states if s.partition in accepted]
    if passed or given_up:
        with store.index.transaction() as transaction:
            transaction.advance(store.identity.epoch, {place: places[place] for place in passed})
            transaction.accept_losses(
                store.identity.epoch, {place: places[place] for place in given_up}
            )
