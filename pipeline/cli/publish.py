"""`rmos publish`: publish requests, and wait for their outcomes."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import asdict
from typing import Annotated, Any

import typer

from pipeline.broker.admin.groups import group_members
from pipeline.broker.publisher import (
    AdvisoryPublisher,
    Published,
    Receipt,
    RequestPublisher,
    RunPublisher,
)
from pipeline.broker.receipts import Event
from pipeline.cli.options import AsNdjson
from pipeline.cli.request_files import (
    FileRecord,
    advisory_fault,
    as_new,
    read_records,
    refuse_bad_requests,
    run_fault,
)
from pipeline.cli.views.terminal import counted, listed, note, print_json, print_text, progress_bar
from pipeline.core.runs.words import explained
from pipeline.errors import BrokerError, RefusedError
from pipeline.settings import Settings, read_settings
from schemas.advisory_event import AdvisoryEvent
from schemas.run_event import EventError, RunEvent

QUIET_SECONDS = 5.0
"""After this long without an event, a person is shown what is waited for."""

IN_FLIGHT = 1000
"""Most requests on their way at a time."""

Files = Annotated[
    list[str], typer.Argument(metavar="FILE...", help="JSON or NDJSON; - for standard input.")
]
Raw = Annotated[bool, typer.Option("--raw", help="Send every line as it is, without checking it.")]

app = typer.Typer(no_args_is_help=True)


@app.command()
def run(
    files: Files,
    raw: Raw = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the event of each; exit 4 unless all are OK.")
    ] = False,
    new: Annotated[
        bool,
        typer.Option(
            "--as-new", help="Give each request a new run_id and the time of now, as for a trial."
        ),
    ] = False,
    as_json: AsNdjson = False,
) -> None:
    """Publish run requests, all or nothing: if one is invalid, none is sent, unless --raw."""
    records = read_records(files, raw=raw)
    if new:
        records = [as_new(record) for record in records]
    if not raw:
        refuse_bad_requests(records, run_fault)
    settings = read_settings()
    topics = settings.topics
    group = topics.persist_group if settings.runs_v2_enabled else topics.persist_v1_group
    publishing = _publish(
        *(RunPublisher(settings), settings, group, records, _status_of_run, _words_of_run),
        raw=raw,
        wait=wait,
        as_json=as_json,
    )
    _end(asyncio.run(publishing), as_json=as_json)


@app.command()
def advisory(
    files: Files,
    raw: Raw = False,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait", help="Wait for the event of each; exit 4 if one is in conflict or rejected."
        ),
    ] = False,
    as_json: AsNdjson = False,
) -> None:
    """Publish advisory requests, all or nothing: if one is invalid, none is sent, unless --raw.

    An advisory whose run is not stored yet is reported as waiting; it is linked with its run.
    """
    records = read_records(files, raw=raw)
    if not raw:
        refuse_bad_requests(records, advisory_fault)
    settings = read_settings()
    publishing = _publish(
        *(AdvisoryPublisher(settings), settings, settings.topics.advise_group, records),
        *(_status_of_advisory, _words_of_advisory),
        raw=raw,
        wait=wait,
        as_json=as_json,
    )
    _end(asyncio.run(publishing), as_json=as_json)


def _end(counts: Counter[str], *, as_json: bool) -> None:
    if as_json:
        print_json({"summary": dict(counts)})
    else:
        note(listed(counts))
    if counts["refused"] or counts["blocked"]:
        raise typer.Exit(RefusedError.exit_status)


async def _publish(
    publisher: RequestPublisher[Event],
    settings: Settings,
    group: str,
    records: list[FileRecord],
    status_of: Callable[[Event], str | None],
    words_of: Callable[[Event], list[str]],
    *,
    raw: bool,
    wait: bool,
    as_json: bool,
) -> Counter[str]:
    """Send records, print what becomes of each, and count it.

    Args:
        publisher: Not connected yet.
        settings: Which broker; how long to wait.
        group: The consumer group that judges the records.
        records: What to send.
        status_of: What else a summary counts an event as: refused, blocked or nothing.
        words_of: What a person is shown of an event.
        raw: Whether to send each as it is.
        wait: Whether to wait for its event.
        as_json: Whether to print NDJSON.
    """
    counts: Counter[str] = Counter()
    is_quiet = True
    async with publisher, aclosing(_sent(publisher, records, raw=raw)) as receipts:
        with progress_bar() as progress:
            async for receipt in receipts:
                published = await receipt.published()
                counts["published"] += 1
                document: Any = asdict(published)
                words = [published.run_id or "-", str(published)]
                if wait:
                    waiting = asyncio.ensure_future(receipt.event())
                    await asyncio.wait([waiting], timeout=QUIET_SECONDS)
                    if is_quiet and not waiting.done():
                        is_quiet = False
                        note(await _waited_for(settings, group, published))
                    event = await waiting
                    document = event.model_dump(mode="json", exclude_none=True)
                    words = words_of(event)
                    counts[document["outcome"]] += 1
                    status = status_of(event)
                    # A summary names what was refused also where nothing was.
                    counts["refused"] += status == "refused"
                    if status == "blocked":
                        counts["blocked"] += 1
                if as_json:
                    print_json(document)
                else:
                    print_text("  ".join(words).rstrip())
                progress("requests", counts["published"], len(records))
    return counts


async def _waited_for(settings: Settings, group: str, published: Published) -> str:
    """Print which event does not come, and whether a worker is there to send it."""
    try:
        members = await group_members(settings, group)
    except BrokerError as error:
        why = str(error)
    else:
        why = (
            f"the group {group} has {counted(len(members), 'worker')}, behind or waiting; "
            "`rmos offsets show` shows its lag."
            if members
            else f"no worker of the group {group} runs; `rmos worker` starts one."
        )
    seconds = settings.receipt_timeout_seconds
    name = published.run_id or "the record"
    return f"Waiting up to {seconds:g} s for the event of {name} ({published}): {why}"


async def _sent(
    publisher: RequestPublisher[Event], records: list[FileRecord], *, raw: bool
) -> AsyncGenerator[Receipt[Event]]:
    """Send the records, so many at a time, and give back their receipts in order."""
    in_flight: deque[Receipt[Event]] = deque()
    for record in records:
        if raw:
            in_flight.append(await publisher.send_raw(record.key, record.body))
        else:
            in_flight.append(await publisher.send(record.body))
        if len(in_flight) == IN_FLIGHT:
            yield in_flight.popleft()
    while in_flight:
        yield in_flight.popleft()


def _status_of_run(event: RunEvent) -> str | None:
    if event.outcome not in {"persisted", "duplicate"}:
        return "refused"
    # Stored for good all the same; the machine must not cut by it.
    return None if event.status == "OK" else "blocked"


def _words_of_run(event: RunEvent) -> list[str]:
    missing = event.missing_attachments or []
    return [
        event.run_id or "-",
        event.outcome,
        event.status or "-",
        f"may_cut={str(event.may_cut).lower()}",
        *([f"missing_attachments={','.join(missing)}"] if missing else []),
        _why(event.error) or explained(event.block_reason),
    ]


def _why(error: EventError | None) -> str:
    return "" if error is None else f"{error.code}: {error.message}"


def _status_of_advisory(event: AdvisoryEvent) -> str | None:
    return None if event.outcome in {"linked", "duplicate", "waiting"} else "refused"


def _words_of_advisory(event: AdvisoryEvent) -> list[str]:
    why = _why(event.error) or event.link_path or ""
    return [event.run_id or "-", event.advisory_id or "-", event.outcome, why]
