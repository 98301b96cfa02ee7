"""Where a group is to be moved, as options say it."""

import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from pipeline.broker.admin.topics import partition_offsets
from pipeline.broker.offset_times import ranges_since
from pipeline.cli.moments import moment_ms
from pipeline.disk.store_identity import read_store
from pipeline.errors import InputError
from pipeline.recovery.offsets.moves import GroupPosition, Place, Target
from pipeline.settings import Settings
from pipeline.storage.index.opening import open_index_to_read
from pipeline.topics import consumer_groups

_PLACE = re.compile(
    r"(?:(?P<topic>[A-Za-z0-9._-]+):)?(?P<partition>[0-9]{1,9}):(?P<offset>[0-9]{1,18})"
)


@dataclass(frozen=True, slots=True)
class TargetOptions:
    """The options that say where to; exactly one of them is given.

    Attributes:
        to_time: RFC 3339.
        to_offset: Each `P:N`, or `TOPIC:P:N`.
    """

    to_time: str | None
    to_offset: Sequence[str]
    earliest: bool
    latest: bool
    shift_by: int | None
    to_store: bool

    def check(self) -> None:
        """Check that one was given.

        Raises:
            InputError: None was, or several, or a time that is none.
        """
        given = (
            self.to_time is not None,
            bool(self.to_offset),
            self.earliest,
            self.latest,
            self.shift_by is not None,
            self.to_store,
        )
        if sum(given) != 1:
            message = (
                "Say where to: one of --to-time, --to-offset, --earliest, --latest, --shift-by, "
                "--to-store."
            )
            raise InputError(message)
        moment_ms("--to-time", self.to_time)


async def target_of(settings: Settings, group: str, options: TargetOptions) -> Target:
    """Return where each partition of `group` is to be moved.

    Raises:
        InputError: A place is none that the group reads.
        BrokerError: The broker cannot be reached.
    """
    ranges = await partition_offsets(settings, consumer_groups(settings.prefix)[group])
    time_ms = moment_ms("--to-time", options.to_time)
    if time_ms is not None:
        later = await ranges_since(settings, ranges, time_ms)
        return lambda position: later[position.topic, position.partition].beginning
    if options.to_offset:
        places = _places(options.to_offset, group, ranges)
        return lambda position: places.get((position.topic, position.partition))
    if options.to_store:
        kept = _kept_by_store(settings, group)
        return lambda position: _back_to(kept, position)
    if (shift := options.shift_by) is not None:
        return lambda position: position.following + shift
    return lambda position: position.begin if options.earliest else position.end


def _kept_by_store(settings: Settings, group: str) -> Mapping[Place, int]:
    """Return where the store goes on in what `group` reads.

    Raises:
        InputError: The group is none that writes into a store.
        StoreNotReadyError: There is no store, or its index is missing or damaged.
    """
    topics = settings.topics
    if group not in {topics.persist_group, topics.advise_group, topics.migrate_group}:
        message = f"{group} does not go by a store: say another place."
        raise InputError(message)
    epoch = read_store(settings.data_dir).epoch
    with closing(open_index_to_read(settings.data_dir)) as index:
        return index.kept_to(epoch)


def _back_to(kept: Mapping[Place, int], position: GroupPosition) -> int | None:
    """Return where the store goes on, if the group is beyond it; nobody skips by this way."""
    stored = kept.get((position.topic, position.partition), 0)
    is_beyond = position.committed is not None and position.committed > stored
    return stored if is_beyond else None


def _places(texts: Sequence[str], group: str, known: Collection[Place]) -> Mapping[Place, int]:
    topics = {topic for topic, _ in known}
    places = {}
    for text in texts:
        found = _PLACE.fullmatch(text)
        if found is None or (found["topic"] is None and len(topics) > 1):
            wanted = "P:N" if len(topics) == 1 else "TOPIC:P:N"
            message = f"--to-offset cannot be {text!r}: expected {wanted}."
            raise InputError(message)
        place = (found["topic"] or next(iter(topics)), int(found["partition"]))
        if place not in known:
            message = f"{group} does not read {place[0]}, partition {place[1]}: nothing was moved."
            raise InputError(message)
        places[place] = int(found["offset"])
    return places
