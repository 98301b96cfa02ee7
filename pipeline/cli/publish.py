"""`rmos publish`: put requests on the topic, and wait for what becomes of them."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated, Any

import typer

from pipeline.broker.publisher import Published, Receipt, RunPublisher
from pipeline.cli.request_files import FileRecord, read_records, refuse_bad_requests
from pipeline.cli.terminal import notes, print_json, progress_bar
from pipeline.settings import read_settings
from schemas.run_event import RunEvent

REFUSED = 4
"""Exit status where one of the runs is blocked, in conflict or rejected."""

IN_FLIGHT = 1000
"""Most requests on their way at a time."""

app = typer.Typer(no_args_is_help=True, help="Publish requests.")


@app.command()
def run(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="JSON or NDJSON; - for standard input.")
    ],
    raw: Annotated[
        bool, typer.Option("--raw", help="Send every line as it is, without checking it.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the event of each; exit 4 unless all are OK.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print NDJSON and a summary.")] = False,
) -> None:
    """Publish run requests. One bad request and none is sent, unless --raw."""
    records = read_records(files, raw=raw)
    if not raw:
        refuse_bad_requests(records)
    counts = asyncio.run(_publish(records, raw=raw, wait=wait, as_json=as_json))
    if as_json:
        print_json({"summary": dict(counts)})
    else:
        notes().print(", ".join(f"{count:,} {what}" for what, count in counts.items()))
    if counts["refused"]:
        raise typer.Exit(REFUSED)


async def _publish(
    records: list[FileRecord], *, raw: bool, wait: bool, as_json: bool
) -> Counter[str]:
    counts: Counter[str] = Counter()
    async with RunPublisher(read_settings()) as publisher:
        with progress_bar("publishing", len(records)) as advance:
            async for receipt in _sent(publisher, records, raw=raw):
                published = await receipt.published()
                counts["published"] += 1
                if wait:
                    event = await receipt.event()
                    counts[event.outcome] += 1
                    counts["refused"] += not _is_accepted(event)
                    _tell_event(event, as_json=as_json)
                else:
                    _tell_published(published, as_json=as_json)
                advance()
    return counts


async def _sent(
    publisher: RunPublisher, records: list[FileRecord], *, raw: bool
) -> AsyncIterator[Receipt]:
    """Send the records, so many at a time, and give back their receipts in order."""
    on_their_way: deque[Receipt] = deque()
    for record in records:
        if raw:
            on_their_way.append(await publisher.send_raw(record.key, record.body))
        else:
            on_their_way.append(await publisher.send(record.body))
        if len(on_their_way) == IN_FLIGHT:
            yield on_their_way.popleft()
    while on_their_way:
        yield on_their_way.popleft()


def _is_accepted(event: RunEvent) -> bool:
    return event.outcome in {"persisted", "duplicate"} and event.status == "OK"


def _tell_event(event: RunEvent, *, as_json: bool) -> None:
    if as_json:
        print_json(event.model_dump(mode="json", exclude_none=True))
        return
    why = event.error.code if event.error is not None else event.block_reason
    shown: list[Any] = [event.run_id or "-", event.outcome, event.status or "-"]
    typer.echo("  ".join([*shown, f"may_cut={str(event.may_cut).lower()}", why or ""]).rstrip())


def _tell_published(published: Published, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(published))
        return
    typer.echo(f"{published.run_id or '-'}  {published}")
