"""The page of the flow: requests that come, the lag, events, and what holds them up."""

import asyncio
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from starlette.responses import Response

from pipeline.api.dependencies import ApiDependencies, ApiDeps
from pipeline.broker.event_reader import TailEvent
from pipeline.broker.reading.looks import WAIT_SECONDS, FlowLook, GroupLook, Rates
from pipeline.core.record import Partition
from pipeline.core.runs.words import explained
from pipeline.errors import BrokerError, RmosError
from pipeline.page.rendering import moment_of, page
from pipeline.page.route import PageRoute
from pipeline.page.words import shortened
from schemas.fields import is_run_id

router = APIRouter(route_class=PageRoute)

_NAMES: Final = {
    "persist": ("Runs", "rmos worker persist"),
    "advise": ("Advisories", "rmos worker advisories"),
    "audit": ("Audits", "rmos worker audit"),
}
"""What the requests of a group are about, and the command that starts its worker."""

_LATE_SECONDS: Final = 60
"""A record that waits for longer is a fault, but for an audit, which takes its time."""

_FLOOD_SHARE: Final = 0.5
_FLOOD_LEAST: Final = 0.2
"""In letters a second: one every five seconds."""


@dataclass(frozen=True, slots=True)
class GroupView:
    """A group as the page shows it.

    Attributes:
        what: What its requests are about.
        state: `flows`, `stands`, `has no worker` or `has lost records`.
        came: Records in the log.
        not_stored: Of these, not in the store yet; None where the group stores nothing.
        not_told: Without their event or dead letter.
        came_rate: Records a second; None before the second look.
        told_rate: The same.
        oldest: Age of the oldest record without its event, in words.
        workers: Each with the number of the partitions that it holds.
        held: How many of the partitions have a worker.
    """

    what: str
    name: str
    state: str
    came: int
    not_stored: int | None
    not_told: int
    came_rate: float | None
    told_rate: float | None
    oldest: str
    workers: Sequence[tuple[str, int]]
    held: int
    partitions: int
    fault: str | None


@dataclass(frozen=True, slots=True)
class EventView:
    """An event as the page shows it; of what no worker wrote only the place."""

    at: datetime | None
    place: str
    outcome: str
    run_id: str | None
    about: str
    link: str | None
    why: str


@router.get("/flow")
async def show_flow(request: Request, deps: ApiDeps, paused: bool = False) -> Response:
    """Return the page; where no broker answers it says so, within a few seconds."""
    checks, look, stored, _ = await asyncio.gather(
        deps.checks(),
        _look(deps),
        deps.lookup(_stored_to, deps),
        _read_events(deps),
    )
    away = look if isinstance(look, str) else None
    # A page that renews itself goes on to; a browser and htmx take 503 as an error of the page.
    renews = "hx-request" in request.headers
    view = {} if isinstance(look, str) else flow_view(look, stored, deps.broker.rates)
    return page(
        request,
        "flow.html",
        503 if away and not renews else 200,
        away=away,
        paused=paused,
        checks=sorted(checks.items()),
        is_ready=all(checks.values()),
        reasons=list(deps.reasons()),
        events=list(map(event_view, deps.broker.events.newest_first())),
        **view,
    )


async def _look(deps: ApiDependencies) -> FlowLook | str:
    try:
        return await deps.broker.flow()
    except BrokerError as error:
        return str(error)


async def _read_events(deps: ApiDependencies) -> None:
    """Let the readers of events run; what they have not read yet is on the next page."""
    with suppress(TimeoutError):
        async with asyncio.timeout(WAIT_SECONDS):
            await asyncio.gather(
                deps.runs.read_events(), deps.advisories.read_events(), return_exceptions=True
            )


def _stored_to(deps: ApiDependencies) -> Mapping[Partition, int] | None:
    try:
        return deps.reader.stored_to()
    except RmosError:
        # The index cannot be read now; readiness says so.
        return None


def flow_view(
    look: FlowLook, stored: Mapping[Partition, int] | None, rates: Rates
) -> dict[str, Any]:
    """Return what the page shows of a look at the broker.

    Args:
        look: The groups, and the topics of dead letters.
        stored: How far each partition is stored; None where the index cannot be read.
        rates: Of the looks before.
    """
    groups = [_group_view(group, stored, rates) for group in look.groups]
    letter_rate = rates.per_second("letters")
    told_rate = sum(group.told_rate or 0 for group in groups)
    return {
        "groups": groups,
        "faults": [(group.what, group.fault) for group in groups if group.fault],
        "letters": sum(each.end - each.beginning for each in look.letters.values()),
        "letter_rate": letter_rate,
        "is_flood": letter_rate is not None
        and letter_rate >= _FLOOD_LEAST
        and letter_rate >= _FLOOD_SHARE * told_rate,
    }


def _group_view(
    group: GroupLook, stored: Mapping[Partition, int] | None, rates: Rates
) -> GroupView:
    what, command = _NAMES[group.name.rpartition(".")[2]]
    places = {each.place for each in group.positions}
    workers = [
        (f"{member.client_id} at {member.host}", len(places.intersection(member.holds)))
        for member in group.members
    ]
    held = len(places.intersection(place for each in group.members for place in each.holds))
    waiting = {each.place for each in group.positions if each.lag}
    without = waiting.difference(place for each in group.members for place in each.holds)
    seconds = _seconds_since(group.oldest_ms)
    told_rate = rates.per_second(f"{group.name} told")
    lost = sum(each.lost for each in group.positions)
    not_stored = None
    if stored is not None and not group.name.endswith(".audit"):
        not_stored = sum(
            max(each.end - max(stored.get(each.place, 0), each.begin), 0)
            for each in group.positions
        )
    state, fault = "flows", None
    if lost:
        state = "has lost records"
        fault = f"{lost:,} records were removed before they were consumed: see rmos offsets show."
    elif not held:
        state = "has no worker"
        fault = f"No worker holds a partition: start one with {command}."
    elif without:
        state = "stands"
        fault = (
            f"{len(without)} of {len(places)} partitions have records that wait and no worker: "
            "rmos offsets show names them."
        )
    elif seconds is not None and seconds > _LATE_SECONDS and not group.name.endswith(".audit"):
        state = "stands"
        fault = f"The oldest record waits for {_age(seconds)}: rmos offsets show names what holds."
    elif group.lag and told_rate == 0:
        state = "stands"
        fault = f"The lag is {group.lag:,} records and does not change: see rmos offsets show."
    return GroupView(
        what, group.name, state, group.came, not_stored, group.lag,
        rates.per_second(f"{group.name} came"), told_rate, "" if seconds is None else _age(seconds),
        workers, held, len(places), fault,
    )  # fmt: skip


def _seconds_since(milliseconds: int | None) -> int | None:
    at = moment_of(milliseconds)
    return None if at is None else max(math.floor((datetime.now(UTC) - at).total_seconds()), 0)


def _age(seconds: int) -> str:
    for unit, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:,} {unit}"
    return f"{seconds} s"


def event_view(event: TailEvent) -> EventView:
    """Return an event as texts, whatever a client wrote to the topic."""
    at, place = moment_of(event.timestamp_ms), str(event.place)
    try:
        found = json.loads(event.value)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        return EventView(at, place, "not readable", None, "", None, "")
    run_id, outcome = found.get("run_id"), found.get("outcome")
    # A conflict describes the run that is stored; a rejected record has made none.
    shown = ("outcome", "status", "risk_level")[: 1 if outcome == "conflict" else 3]
    source = found.get("source")
    about = [
        found.get("advisory_id"),
        "/".join(str(source.get(name)) for name in ("topic", "partition", "offset"))
        if isinstance(source, dict)
        else None,
    ]
    error = found.get("error")
    reason = found.get("block_reason")
    why = error.get("code") if isinstance(error, dict) else reason and explained(str(reason))
    return EventView(
        at,
        place,
        " ".join(str(found[each]) for each in shown if found.get(each)),
        run_id if isinstance(run_id, str) and is_run_id(run_id) and outcome != "rejected" else None,
        shortened(", ".join(str(each) for each in about if each)),
        _link_of(about[1], outcome),
        shortened(str(why)) if why else "",
    )


def _link_of(record: str | None, outcome: object) -> str | None:
    """Return where a record is explained; of one that was refused, its dead letter."""
    if record is None:
        return None
    if outcome in {"conflict", "rejected"}:
        return f"/dead-letters?{urlencode({'source': record})}"
    return f"/search?{urlencode({'q': record})}"
