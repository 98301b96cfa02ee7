"""The plan of a replay: its range, what retention has removed, what the store has."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.broker.admin.topics import OffsetRange, topic_retention_ms
from pipeline.broker.reading.log_holes import Hole
from pipeline.broker.reading.times import record_times
from pipeline.consumers.engine.topic_identity import check_topic_ids
from pipeline.core.record import Partition
from pipeline.core.store.identity import STORE_FILE
from pipeline.ledger.log_id import LogId
from pipeline.recovery.replay.partitions import OpenedStore, identity_for_broker, opened_to_read
from pipeline.recovery.replay.request_topics import (
    consumed_offsets,
    holes_in_consumed,
    request_topics,
)
from pipeline.recovery.replay.selection import Selection, resolve
from pipeline.settings import Settings


@dataclass(frozen=True, slots=True)
class PlannedPartition:
    """One partition.

    Attributes:
        topic: Its topic.
        partition: Its number.
        log: What the broker holds.
        selected: What of it would be read.
        times_ms: Broker times of the first and the last record of that, in ms since 1970.
        committed: Where its workers go on; None where they never were.
        position: Where the index of the store goes on; None where there is no store.
        leaves_to: Offset after that of its last leaf; None where there is no ledger.
        holes: Offsets before `committed` that were those of records, which are gone.
    """

    topic: str
    partition: int
    log: OffsetRange
    selected: OffsetRange
    times_ms: tuple[int, int] | None
    committed: int | None
    position: int | None
    leaves_to: int | None
    holes: tuple[Hole, ...] = ()

    @property
    def count(self) -> int:
        """Offsets that would be read; marks of transactions count too."""
        return self.selected.end - self.selected.beginning

    @property
    def lost(self) -> OffsetRange | None:
        """What retention has removed and the store does not have; None where there is none."""
        known = [each for each in (self.position, self.leaves_to) if each is not None]
        stored_to = min(known, default=0)
        begin = self.log.beginning
        return OffsetRange(stored_to, begin) if stored_to < begin else None


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """What a replay would read.

    Attributes:
        partitions: In the order of a replay.
        retention_ms: How long the broker keeps each request topic; -1 is for ever.
        store_id: The store that would be compared or restored; None where there is none.
    """

    partitions: list[PlannedPartition]
    retention_ms: Mapping[str, int]
    store_id: str | None


async def plan(settings: Settings, selection: Selection) -> ReplayPlan:
    """Return what a replay of `selection` would read.

    Raises:
        InputError: The selection is of no request topic.
        StoreError: There is a store that does not fit the broker, or that cannot be read.
        BrokerError: The broker cannot be reached, or a topic is missing.
    """
    names = [topic.name for topic in request_topics(settings.topics)]
    ranges = await resolve(settings, selection, names)
    times = await record_times(settings, {place: each.selected for place, each in ranges.items()})
    committed = await consumed_offsets(settings)
    store_id, stored = await _stored(settings, list(ranges))
    logs = {place: each.log for place, each in ranges.items()}
    holes = await holes_in_consumed(settings, logs, committed)
    order = {name: number for number, name in enumerate(names)}
    partitions = [
        PlannedPartition(
            *place,
            ranges[place].log,
            ranges[place].selected,
            times.get(place),
            committed.get(place),
            *stored[place],
            tuple(holes.get(place, ())),
        )
        for place in sorted(ranges, key=lambda each: (order[each[0]], each[1]))
    ]
    return ReplayPlan(partitions, await topic_retention_ms(settings, names), store_id)


async def _stored(
    settings: Settings, places: list[Partition]
) -> tuple[str | None, dict[Partition, tuple[int | None, int | None]]]:
    """Return the store's id, and how far its rows and its leaves come in each partition."""
    # Who names a bucket means a store; the folder has a default.
    if not settings.is_shared and not (settings.data_dir / STORE_FILE).exists():
        return None, dict.fromkeys(places, (None, None))
    identity = await identity_for_broker(settings)
    with opened_to_read(settings) as opened:
        await check_topic_ids(settings, opened.store.index, identity.epoch)
        positions = opened.store.index.positions(identity.epoch)
        stored: dict[Partition, tuple[int | None, int | None]] = {
            place: (positions.get(place, 0), _leaves_to(opened, LogId(identity.epoch, *place)))
            for place in places
        }
    return identity.store_id, stored


def _leaves_to(opened: OpenedStore, log: LogId) -> int | None:
    if opened.ledger is None:
        return None
    reader = opened.ledger.reader(log)
    return 0 if reader is None else reader.next_offset
