"""`rmos peek`: the records that wait for a group, and what they share."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.options import AsNdjson, full_group, moment_text
from pipeline.cli.views.terminal import known, note, print_json, print_table
from pipeline.core.visible_text import visible
from pipeline.settings import Settings, read_settings

if TYPE_CHECKING:
    from pipeline.recovery.replay.peek import WaitingRecord
    from pipeline.recovery.replay.request_topics import RequestTopic

COLUMNS = ("record", "broker_time_utc", "verdict", "key", "size_bytes", "headers")
_HEADERS_CHARACTERS = 120


def peek(
    group: Annotated[
        str, typer.Argument(metavar="GROUP", help="Consumer group: persist, advise or migrate.")
    ] = "persist",
    limit: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Records to read, equally many of each partition."),
    ] = 100,
    as_json: AsNdjson = False,
) -> None:
    """Show the records that wait for a group, the outcome of each, and what they share.

    Nothing is consumed, moved or written.
    """
    from pipeline.recovery.replay.peek import common

    settings = read_settings()
    topic = _topic(settings, group)
    waiting, records = asyncio.run(_look(settings, topic, limit))
    shared = common(records)
    if as_json:
        for record in records:
            print_json(_document(record))
        summary = {"group": topic.group, "waiting": waiting}
        print_json({"summary": {**summary, "read": len(records), **shared}})
        return
    print_table(COLUMNS, map(_row, records))
    note(f"{topic.group}: {waiting:,} wait, {len(records):,} read")
    for name, counts in shared.items():
        for text, count in counts.items():
            note(f"  {name} {count:,}  {visible(text)}")


async def _look(
    settings: Settings, topic: "RequestTopic", limit: int
) -> tuple[int, list["WaitingRecord"]]:
    """Return how many offsets wait, marks of transactions among them, and the first records."""
    from pipeline.recovery.replay.peek import peek as peek_records
    from pipeline.recovery.replay.peek import waiting_in

    waiting = await waiting_in(settings, topic)
    records = [each async for each in peek_records(settings, topic, waiting, limit)]
    return sum(each.end - each.beginning for each in waiting.values()), records


def _topic(settings: Settings, group: str) -> "RequestTopic":
    from pipeline.recovery.replay.request_topics import request_topics

    topics = {each.group: each for each in request_topics(settings.topics)}
    return topics[full_group(settings, group, topics, "of requests")]


def _document(record: "WaitingRecord") -> dict[str, Any]:
    document: dict[str, Any] = {
        "record": str(record.place),
        "broker_time_utc": moment_text(record.timestamp_ms),
        "verdict": record.verdict,
        "reason": record.reason,
        "key": record.key,
        "size_bytes": record.size_bytes,
        "headers": [{"name": name, "value": value} for name, value in record.headers],
    }
    return known(document)


def _row(record: "WaitingRecord") -> Sequence[object]:
    headers = ", ".join(f"{name}={value}" for name, value in record.headers)
    cut = "..." if len(headers) > _HEADERS_CHARACTERS else ""
    return (
        record.place,
        moment_text(record.timestamp_ms),
        record.verdict,
        "-" if record.key is None else record.key,
        record.size_bytes,
        headers[:_HEADERS_CHARACTERS] + cut,
    )
