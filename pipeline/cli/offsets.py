"""`rmos offsets`: show where consumer groups are, and move one that has no members."""

import asyncio
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from typing import Annotated

import typer

from pipeline.broker.admin.groups import GroupPosition, describe_group, group_positions
from pipeline.broker.admin.open_transactions import OpenTransaction, open_transactions
from pipeline.broker.admin.topics import partition_offsets
from pipeline.broker.reading.times import ranges_since
from pipeline.cli.options import MOMENT, AsJson, full_group, moment_ms
from pipeline.cli.views.offsets import (
    MOVE_COLUMNS,
    POSITION_COLUMNS,
    GroupView,
    move_document,
    move_row,
    warnings,
)
from pipeline.cli.views.terminal import note, print_json, print_table
from pipeline.core.record import Partition
from pipeline.errors import BrokerError, InputError, RefusedError
from pipeline.recovery.group_moves import (
    OffsetMove,
    Target,
    kept_positions,
    move_group,
    moves_back,
    moves_within_log,
    read_kept,
    refuse_live_group,
)
from pipeline.settings import Settings, read_settings
from pipeline.topics import consumer_groups

_PLACE = re.compile(
    r"(?:(?P<topic>[A-Za-z0-9._-]+):)?(?P<partition>[0-9]{1,9}):(?P<offset>[0-9]{1,18})"
)


def _back_to_store(settings: Settings, group: str) -> Target:
    """Move a group back to where the store goes on, where it is beyond; nobody skips by this way.

    Raises:
        InputError: The group is none that writes into a store.
        StoreNotReadyError: There is no store, or its index is missing or damaged.
    """
    topics = settings.topics
    if group not in {topics.persist_group, topics.advise_group, topics.migrate_group}:
        raise InputError(f"{group} does not go by a store: say another place.")
    # SQLAlchemy with them, which no other target needs.
    from pipeline.storage.store import open_to_read

    with closing(open_to_read(settings)) as store:
        kept = store.index.kept_to(store.identity.epoch)

    def target(position: GroupPosition) -> int | None:
        stored = kept.get(position.place, 0)
        is_beyond = position.committed is not None and position.committed > stored
        return stored if is_beyond else None

    return target


async def _named_target(
    settings: Settings, group: str, time_ms: int | None, offsets: Sequence[str]
) -> Target:
    """Move to the first record of a time or later, else to the offsets that are named."""
    ranges = await partition_offsets(settings, consumer_groups(settings.prefix)[group])
    if time_ms is not None:
        later = await ranges_since(settings, ranges, time_ms)
        return lambda position: later[position.place].beginning
    places = _places(offsets, group, ranges)
    return lambda position: places.get(position.place)


def _places(
    texts: Sequence[str], group: str, known: Collection[Partition]
) -> Mapping[Partition, int]:
    topics = {topic for topic, _ in known}
    places = {}
    for text in texts:
        found = _PLACE.fullmatch(text)
        if found is None or (found["topic"] is None and len(topics) > 1):
            wanted = "P:N" if len(topics) == 1 else "TOPIC:P:N"
            raise InputError(f"--to-offset cannot be {text!r}: expected {wanted}.")
        place = (found["topic"] or next(iter(topics)), int(found["partition"]))
        if place not in known:
            raise InputError(
                f"{group} does not read {place[0]}, partition {place[1]}: nothing was moved."
            )
        places[place] = int(found["offset"])
    return places


app = typer.Typer(no_args_is_help=True)

GroupArgument = Annotated[
    str, typer.Argument(metavar="GROUP", help="With or without the prefix: persist, rmos.persist.")
]
Yes = Annotated[
    bool, typer.Option("--yes", help="Do not ask; needed where no terminal is attached.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would be moved.")]


@app.command()
def show(
    group: Annotated[
        str | None, typer.Argument(metavar="GROUP", help="One group; all if not given.")
    ] = None,
    partitions: Annotated[
        bool, typer.Option("--partitions", help="Show every partition, also one without lag.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the position, the lag and the members of each consumer group.

    A line is a group, or a partition that is behind or has lost records.
    """
    settings = read_settings()
    known = consumer_groups(settings.prefix)
    names = list(known) if group is None else [_group(settings, group)]
    views = asyncio.run(_look(settings, names))
    if as_json:
        print_json({"groups": [view.document() for view in views]})
        return
    shown = [view for view in views if group is not None or not view.is_new]
    print_table(
        POSITION_COLUMNS, (row for view in shown for row in view.rows(partitions=partitions))
    )
    for view in views:
        for line in view.notes():
            note(line)


@app.command()
def reset(
    group: GroupArgument,
    to_time: Annotated[
        str | None,
        typer.Option(metavar=MOMENT, help="To the first record of 2025-12-18T14:03:22Z or later."),
    ] = None,
    to_offset: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[TOPIC:]P:N",
            help="Partition P to offset N, and no other; may be given again.",
        ),
    ] = None,
    earliest: Annotated[bool, typer.Option("--earliest", help="To the log's start.")] = False,
    latest: Annotated[bool, typer.Option("--latest", help="To the log's end.")] = False,
    shift_by: Annotated[
        int | None, typer.Option(metavar="N", help="N further; below zero for back.")
    ] = None,
    to_store: Annotated[
        bool,
        typer.Option("--to-store", help="Back to where the store goes on, where it is beyond."),
    ] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Move a group that has no members; a snapshot of where it was is kept for `undo`.

    Exit 4 if the group has members; they are named.
    """
    ways = (to_time is not None, to_offset, earliest, latest, shift_by is not None, to_store)
    if sum(map(bool, ways)) != 1:
        raise InputError(
            "Expected one of --to-time, --to-offset, --earliest, --latest, --shift-by, --to-store."
        )
    time_ms = moment_ms("--to-time", to_time)
    settings = read_settings()
    name = _group(settings, group)

    async def moves() -> list[OffsetMove]:
        await refuse_live_group(settings, name)
        if to_store:
            target = _back_to_store(settings, name)
        elif time_ms is not None or to_offset:
            target = await _named_target(settings, name, time_ms, to_offset or ())
        else:
            target = shifted
        return moves_within_log(await group_positions(settings, name), target)

    def shifted(position: GroupPosition) -> int:
        if shift_by is not None:
            return position.following + shift_by
        return position.begin if earliest else position.end

    _move(settings, name, asyncio.run(moves()), dry_run=dry_run, yes=yes, as_json=as_json)


@app.command()
def undo(
    group: GroupArgument,
    snapshot: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A snapshot that `show` names; else the latest."),
    ] = None,
    kept: Annotated[str | None, typer.Option("--kept", hidden=True)] = None,  # its former name
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Move a group back to where it was before its last move; a second undo reverts the first."""
    settings = read_settings()
    name = _group(settings, group)

    async def moves() -> list[OffsetMove]:
        await refuse_live_group(settings, name)
        chosen, saved = await read_kept(settings, name, snapshot or kept)
        note(f"To where it was: {chosen}")
        return moves_back(await group_positions(settings, name), saved)

    _move(settings, name, asyncio.run(moves()), dry_run=dry_run, yes=yes, as_json=as_json)


def _move(
    settings: Settings,
    group: str,
    moves: Sequence[OffsetMove],
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Show what would be moved, ask, and move.

    Raises:
        InputError: There is no terminal to ask at, and no --yes.
        RefusedError: The answer is no, or the group has members.
    """
    if not as_json:
        print_table(MOVE_COLUMNS, map(move_row, moves))
    for warning in warnings(moves, group, settings.topics):
        note(warning, "bold yellow")
    kept = None
    if moves and not dry_run:
        if not yes:
            _ask(group, len(moves))
        kept = asyncio.run(move_group(settings, group, moves))
    if as_json:
        print_json({"group": group, "moves": [*map(move_document, moves)], "kept": kept})
    if kept is not None:
        note(f"Moved. A snapshot of where it was is kept: {kept}")
    else:
        note("Nothing was moved." if moves else "It is there already.")


def _ask(group: str, partitions: int) -> None:
    if not sys.stdin.isatty():
        raise InputError(
            "No terminal is attached to ask: look at --dry-run, then give --yes. Nothing was moved."
        )
    if not typer.confirm(f"Move {group} in {partitions} partitions?", err=True):
        raise RefusedError("Nothing was moved.")


async def _look(settings: Settings, groups: Sequence[str]) -> list[GroupView]:
    return [await _view(settings, group) for group in groups]


async def _view(settings: Settings, group: str) -> GroupView:
    positions = await group_positions(settings, group)
    behind = [each.place for each in positions if each.lag]
    return GroupView(
        positions=positions,
        state=await describe_group(settings, group),
        kept=await kept_positions(settings, group),
        transactions=await _transactions(settings, behind),
    )


async def _transactions(
    settings: Settings, behind: Sequence[Partition]
) -> Mapping[Partition, OpenTransaction]:
    """Return what is open where the group is behind; who may not ask is shown the rest."""
    if not behind:
        return {}
    try:
        return await open_transactions(settings, behind)
    except BrokerError as error:
        note(f"Whether open transactions hold it up is not known. {error}")
        return {}


def _group(settings: Settings, name: str) -> str:
    return full_group(settings, name, consumer_groups(settings.prefix), "of this pipeline")
