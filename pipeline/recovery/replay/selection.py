"""The selection of a replay: everything, or a range of times or offsets, or one run.

Times are those of the broker. Every range is from its begin to before its end, and is fixed once,
at the start of a replay.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from aiokafka.partitioner import DefaultPartitioner

from pipeline.broker.admin.topics import OffsetRange, partition_offsets
from pipeline.broker.reading.times import ranges_since
from pipeline.core.record import Partition
from pipeline.errors import InputError
from pipeline.settings import Settings
from schemas.fields import RUN_ID_RULE, is_run_id
from schemas.timestamps import microseconds_since_epoch, parse_timestamp

_OFFSETS = re.compile(
    r"([A-Za-z0-9._-]{1,249})/(0|[1-9][0-9]{0,9})(?::([0-9]{0,18})-([0-9]{0,18}))?"
)
_US_PER_MS = 1000


@dataclass(frozen=True, slots=True)
class OffsetSelection:
    """Part of one partition.

    Attributes:
        begin: First offset; None for the log's first.
        end: Offset after the last one; None for the log's end.
    """

    topic: str
    partition: int
    begin: int | None
    end: int | None


@dataclass(frozen=True, slots=True)
class Selection:
    """What is asked for; what is None limits nothing.

    Attributes:
        since_ms: Broker time of the first records, in ms since 1970.
        until_ms: Broker time before which the last ones lie.
        offsets: Partitions or parts of them; empty for all.
        run_id: The run that records must have as their key.
    """

    since_ms: int | None = None
    until_ms: int | None = None
    offsets: tuple[OffsetSelection, ...] = ()
    run_id: str | None = None

    @property
    def is_everything(self) -> bool:
        """Whether nothing is left out."""
        return self == Selection()


def parse_selection(
    *,
    since: str | None = None,
    until: str | None = None,
    offsets: tuple[str, ...] = (),
    run_id: str | None = None,
) -> Selection:
    """Return what these options ask for.

    Args:
        since: A time such as `2026-01-15T08:00:00Z`.
        until: Likewise.
        offsets: Each `topic/partition`, or with offsets `topic/partition:from-to`.
        run_id: A run.

    Raises:
        InputError: One of them cannot be read or ends before it begins, or two are of one
            partition.
    """
    if run_id is not None and not is_run_id(run_id):
        raise InputError(f"Expected a run_id of {RUN_ID_RULE}; found {run_id!r:.120}.")
    parsed = tuple(_parse_offsets(text) for text in offsets)
    if len({(each.topic, each.partition) for each in parsed}) < len(parsed):
        raise InputError("Expected at most one range of each partition.")
    since_ms, until_ms = _parse_time(since), _parse_time(until)
    _refuse_reversed("times", since_ms, until_ms)
    return Selection(since_ms, until_ms, parsed, run_id)


def _refuse_reversed(what: str, begin: int | None, end: int | None) -> None:
    """Refuse a range that can hold nothing: it would prove nothing."""
    if begin is not None and end is not None and end < begin:
        raise InputError(f"Expected {what} that do not end before they begin.")


def _parse_time(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        moment = parse_timestamp(text)
    except ValueError as error:
        raise InputError(
            f"Expected a time such as 2026-01-15T08:00:00Z, found {text[:80]!r}."
        ) from error
    # The first whole millisecond at or after it: brokers know no part of one.
    return -(-microseconds_since_epoch(moment) // _US_PER_MS)


def _parse_offsets(text: str) -> OffsetSelection:
    found = _OFFSETS.fullmatch(text)
    if found is None:
        raise InputError(
            "Expected a range such as rmos.runs.requests/3:100-200, which ends before offset 200; "
            f"found {text[:300]!r}."
        )
    topic, partition, *ends = found.groups()
    begin, end = (int(each) if each else None for each in ends)
    _refuse_reversed(f"offsets of {topic}/{partition}", begin, end)
    return OffsetSelection(topic, int(partition), begin, end)


@dataclass(frozen=True, slots=True)
class SelectedRange:
    """One partition.

    Attributes:
        log: What its log holds.
        selected: What of it is asked for.
    """

    log: OffsetRange
    selected: OffsetRange


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
    parts = {(each.topic, each.partition): each for each in selection.offsets}
    _refuse_unknown(parts, logs)
    run_id = selection.run_id
    chosen = {
        place: log
        for place, log in logs.items()
        if (not parts or place in parts)
        and (run_id is None or place == _partition_of(run_id, place[0], logs))
    }
    since = await _offsets_at(settings, chosen, selection.since_ms)
    until = await _offsets_at(settings, chosen, selection.until_ms)
    ranges = {}
    for place, log in sorted(chosen.items()):
        part = parts.get(place, OffsetSelection(*place, None, None))
        begin = min(max(part.begin or 0, log.beginning), log.end)
        end = max(min(log.end if part.end is None else part.end, log.end), begin)
        begin = min(max(begin, since.get(place, 0)), end)
        end = max(min(end, until.get(place, end)), begin)
        ranges[place] = SelectedRange(log, OffsetRange(begin, end))
    return ranges


def _refuse_unknown(parts: Iterable[Partition], logs: Mapping[Partition, OffsetRange]) -> None:
    for topic, partition in parts:
        if (topic, partition) not in logs:
            topics = ", ".join(sorted({topic for topic, _ in logs}))
            raise InputError(
                f"Expected a range of {topics}, found {topic}/{partition}, which is no "
                "partition of those."
            )


def _partition_of(run_id: str, topic: str, logs: Iterable[Partition]) -> Partition:
    """Return the partition of a run: that of the default partitioner of Kafka's own clients."""
    partitions = sorted(partition for name, partition in logs if name == topic)
    return topic, DefaultPartitioner()(run_id.encode(), partitions, partitions)


async def _offsets_at(
    settings: Settings, logs: Mapping[Partition, OffsetRange], moment_ms: int | None
) -> dict[Partition, int]:
    """Return the first offset of each log at or after a moment; nothing where there is none."""
    if moment_ms is None:
        return {}
    ranges = await ranges_since(settings, logs, moment_ms)
    return {place: each.beginning for place, each in ranges.items()}
