"""The chapter of the recovery: a deleted artifact comes back, and the request that missed it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pipeline.broker.event_matching import EventFuture, Place
from pipeline.broker.event_reader import EventReader
from pipeline.broker.publisher import RunPublisher
from pipeline.cli.demo.requests import DemoRequest
from pipeline.cli.demo.screen import Screen
from pipeline.core.dead_letters.selection import LetterFilter
from pipeline.core.hashing import sha256_of_bytes
from pipeline.errors import IntegrityError
from pipeline.recovery.dead_letters.redriving import RedriveOrder, RedriveResult, redrive
from pipeline.recovery.replay.restore import restore
from pipeline.recovery.replay.selection import Selection
from pipeline.settings import Settings
from pipeline.topics import REQUEST_PARTITIONS
from schemas.run_event import RunEvent

_CODE = "ARTIFACT_CORRUPT"


async def show_recovery(
    settings: Settings, run: RunEvent, request: DemoRequest, screen: Screen
) -> None:
    """Delete an artifact, let its request come again, restore it, and redrive the dead letter.

    Raises:
        IntegrityError: What came back is not what was deleted.
        BrokerError: The broker did not answer.
    """
    assert run.artifact_path is not None
    screen.chapter("An artifact is deleted, and restored from the topic with the same hash")
    path = settings.data_dir / run.artifact_path
    path.unlink()
    screen.command(f"rm {run.artifact_path}")
    async with RunPublisher(settings) as publisher:
        event = await (await publisher.send_raw(request.key, request.value)).event()
    assert event.error is not None
    screen.line(f"  its request comes again: {event.outcome}, {event.error.code}", "bold red")
    await _restore(settings, run, path, screen)
    await _redrive(settings, screen)


async def _restore(settings: Settings, run: RunEvent, path: Path, screen: Screen) -> None:
    screen.command(f"rmos replay restore --run-id {run.run_id}")
    await restore(settings, Selection(run_id=run.run_id), lambda finding: None)
    found = await asyncio.to_thread(lambda: sha256_of_bytes(path.read_bytes()))
    screen.line(f"  {found}  restored")
    screen.line(f"  {run.artifact_sha256}  as the event said")
    if found != run.artifact_sha256:
        message = f"{run.artifact_path} came back with another hash."
        raise IntegrityError(message)


async def _redrive(settings: Settings, screen: Screen) -> None:
    screen.command(f"rmos dead-letters redrive --code {_CODE}")
    order = RedriveOrder(LetterFilter(codes=frozenset({_CODE})))
    async with _event_reader(settings) as reader:
        ticket = reader.matcher.announce()
        (result,) = [each async for each in redrive(settings, order)]
        event = await _event_of(result, ticket, reader)
    screen.line(f"  {result.letter.identity} is now {result.redriven_as}: {event.outcome}", "green")
    screen.note("a duplicate is a success: the artifact is there, and may_cut says so again")


@asynccontextmanager
async def _event_reader(settings: Settings) -> AsyncIterator[EventReader]:
    reader = EventReader(settings, settings.topics.run_events, range(REQUEST_PARTITIONS))
    await reader.start()
    try:
        yield reader
    finally:
        await reader.stop()


async def _event_of(result: RedriveResult, ticket: int, reader: EventReader) -> RunEvent:
    place = result.redriven_as
    if place is None:
        message = f"The dead letter was not sent: {result.fate}."
        raise IntegrityError(message)
    event = EventFuture(loop=asyncio.get_running_loop())
    reader.matcher.expect(ticket, Place(place.topic, place.partition, place.offset), event)
    return RunEvent.model_validate_json(await event)
