"""Where a selection begins and ends in each partition, fixed once, at the start of a replay."""

from collections.abc import Sequence
from dataclasses import dataclass

from aiokafka.partitioner import murmur2

from pipeline.broker.admin.offsets import OffsetRange, partition_offsets
from pipeline.broker.reading.times import ranges_since
from pipeline.core.record import Partition
from pipeline.errors import InputError
from pipeline.recovery.replay.selection import OffsetSelection, Selection
from pipeline.settings import Settings

_POSITIVE_INT32 = 0x7FFFFFFF


@dataclass(frozen=True, slots=True)
class SelectedRange:
    """One partition.

    Attributes:
        log: What its log holds.
        selected: What of it is asked for.
    """

    log: OffsetRange
    selected: OffsetRange

    @property
    def count(self) -> int:
        """Number of offsets; marks of transactions and what was aborted count too."""
        return self.selected.end - self.selected.beginning


async def resolve(
    settings: Settings, selection: Selection, topics: Sequence[str]
) -> dict[Partition, SelectedRange]:
    """Return the range of each partition that `selection` asks for, as the logs are now.

    Raises:
        InputError: A range is of no partition of `topics`.
        TopicsError: A topic is missing.
        BrokerError: The broker cannot be reached.
    """
    logs = await partition_offsets(settings, topics)
    _check_places(selection, logs)
    ranges = {
        place: log
        for place, log in logs.items()
        if selection.run_id is None or place[1] == _partition_of(selection.run_id, place[0], logs)
    }
    ranges = _within_offsets(selection, ranges)
    if selection.since_ms is not None:
        since = await ranges_since(settings, ranges, selection.since_ms)
        ranges = {
            place: _from(max(each.beginning, since[place].beginning), each)
            for place, each in ranges.items()
        }
    if selection.until_ms is not None:
        until = await ranges_since(
            settings, {place: logs[place] for place in ranges}, selection.until_ms
        )
        ranges = {
            place: _to(min(each.end, until[place].beginning), each)
            for place, each in ranges.items()
        }
    return {place: SelectedRange(logs[place], ranges[place]) for place in sorted(ranges)}


def _from(begin: int, offsets: OffsetRange) -> OffsetRange:
    return OffsetRange(min(begin, offsets.end), offsets.end)


def _to(end: int, offsets: OffsetRange) -> OffsetRange:
    return OffsetRange(offsets.beginning, max(end, offsets.beginning))


def _check_places(selection: Selection, logs: dict[Partition, OffsetRange]) -> None:
    for each in selection.offsets:
        if (each.topic, each.partition) not in logs:
            topics = ", ".join(sorted({topic for topic, _ in logs}))
            raise InputError(
                f"Expected a range of {topics}, found {each.topic}/{each.partition}, which is no "
                "partition of those."
            )


def _partition_of(run_id: str, topic: str, logs: dict[Partition, OffsetRange]) -> int:
    """Return the partition of a run: that of the default partitioner of Kafka's own clients."""
    count = sum(1 for name, _ in logs if name == topic)
    return int((murmur2(run_id.encode()) & _POSITIVE_INT32) % count)


def _within_offsets(
    selection: Selection, ranges: dict[Partition, OffsetRange]
) -> dict[Partition, OffsetRange]:
    if not selection.offsets:
        return ranges
    return {
        place: _cut(ranges[place], each)
        for each in selection.offsets
        if (place := (each.topic, each.partition)) in ranges
    }


def _cut(log: OffsetRange, wanted: OffsetSelection) -> OffsetRange:
    begin = log.beginning if wanted.begin is None else max(wanted.begin, log.beginning)
    end = log.end if wanted.end is None else min(wanted.end, log.end)
    return OffsetRange(min(begin, log.end), max(end, min(begin, log.end)))
