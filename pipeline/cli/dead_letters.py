"""`rmos dead-letters`: refused records, their reasons, and their redrive."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import aiofiles
import typer

from pipeline.broker.reading.dead_letters import (
    DeadLetterContent,
    read_contents,
    select_dead_letters,
)
from pipeline.cli.options import MOMENT, AsJson, AsNdjson, moment_ms, with_options
from pipeline.cli.views.dead_letters import (
    LIST_COLUMNS,
    content_document,
    counted_codes,
    dead_letter_document,
    dead_letter_lines,
    list_row,
)
from pipeline.cli.views.terminal import (
    counted,
    known,
    listed,
    note,
    print_cells,
    print_json,
    print_table,
    print_text,
    progress_bar,
)
from pipeline.core.dead_letters.letter import DeadLetterRecord
from pipeline.core.dead_letters.redrive import Redrive, RedriveResult
from pipeline.core.dead_letters.selection import DeadLetterFilter
from pipeline.core.record import RecordId
from pipeline.errors import (
    InputError,
    IntegrityError,
    NotFoundError,
    RefusedError,
    input_faults,
)
from pipeline.recovery.redriving import redrive
from pipeline.settings import Settings, read_settings

app = typer.Typer(no_args_is_help=True)

Sources = Annotated[
    list[str] | None,
    typer.Argument(metavar="SOURCE...", help="Refused records: rmos.runs.requests/3/17."),
]


def _filter(
    *,
    code: Annotated[
        list[str] | None, typer.Option(help="Refused for this; may be given again.")
    ] = None,
    topic: Annotated[
        list[str] | None,
        typer.Option(help="Of the record or of its dead letter; may be given again."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar=MOMENT, help="Refused then or later: 2025-12-18T14:03:22Z."),
    ] = None,
    until: Annotated[str | None, typer.Option(metavar=MOMENT, help="Refused before that.")] = None,
) -> DeadLetterFilter:
    return DeadLetterFilter(
        codes=frozenset(code or ()),
        topics=frozenset(topic or ()),
        since_ms=moment_ms("--since", since),
        until_ms=moment_ms("--until", until),
    )


@app.command("list")
@with_options(wanted=_filter)
def list_command(
    wanted: DeadLetterFilter,
    unsettled: Annotated[
        bool, typer.Option("--open", help="Only those that were not redriven.")
    ] = False,
    as_json: AsNdjson = False,
) -> None:
    """List refused records, each once, in the order in which they were refused."""
    letters, redrives = asyncio.run(_read(read_settings(), wanted))
    if unsettled:
        letters = [letter for letter in letters if letter.source not in redrives]
    documents = [dead_letter_document(letter, _redrive_of(letter, redrives)) for letter in letters]
    if as_json:
        for document in documents:
            print_json(document)
        print_json({"summary": {"count": len(letters), "codes": counted_codes(letters)}})
        return
    print_table(LIST_COLUMNS, map(list_row, documents), whole="source")
    counts = counted_codes(letters)
    note(f"{counted(len(letters), 'refused record')}{': ' if counts else ''}{listed(counts)}")


@app.command()
def show(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A refused record: rmos.runs.requests/3/17.")
    ],
    as_json: AsJson = False,
) -> None:
    """Show one refused record: why, its headers and its body."""
    settings = read_settings()
    wanted = DeadLetterFilter(sources=frozenset({_place(source)}))
    letters, redrives = asyncio.run(_read(settings, wanted))

    async def read() -> list[tuple[DeadLetterContent, dict[str, Any]]]:
        return [each async for each in _documents(settings, letters[-1:], redrives)]

    found = asyncio.run(read())
    if not found:
        raise NotFoundError(f"Retention has removed the dead letter {letters[-1].place}.")
    content, document = found[0]
    if as_json:
        print_json(document)
        return
    for line in dead_letter_lines(content, _redrive_of(content.letter, redrives)):
        print_text(line)


@app.command()
@with_options(wanted=_filter)
def export(
    wanted: DeadLetterFilter,
    sources: Sources = None,
    to: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for a file a value; NDJSON if not given."),
    ] = None,
) -> None:
    """Write refused records with every byte: NDJSON with base64, or files in a new folder."""
    wanted = replace(wanted, sources=frozenset(map(_place, sources or ())))
    settings = read_settings()
    letters, redrives = asyncio.run(_read(settings, wanted))
    if to is not None:
        count = asyncio.run(export_to_folder(settings, letters, redrives, to))
    else:
        count = asyncio.run(_print_contents(settings, letters, redrives))
        print_json({"summary": {"count": count}})
    note(f"{counted(count, 'refused record')} written")


@app.command("redrive")
@with_options(wanted=_filter)
def redrive_command(
    wanted: DeadLetterFilter,
    sources: Sources = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All, except those that a redrive cannot help.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be sent.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Also those that were redriven before.")
    ] = False,
    as_json: AsNdjson = False,
) -> None:
    """Publish refused records again, unchanged and each once, to the topic that they came from.

    Exit 4 if one cannot be sent, 5 if its bytes are not those that were refused.
    """
    wanted = replace(wanted, sources=frozenset(map(_place, sources or ())))
    if not everything and wanted == DeadLetterFilter():
        raise InputError(
            "Expected SOURCE, --code, --topic, --since, --until or --all; found none of them."
        )
    settings = read_settings()
    counts = asyncio.run(_redrive(settings, wanted, again=again, dry_run=dry_run, as_json=as_json))
    if as_json:
        print_json({"summary": dict(counts)})
    else:
        note(listed(counts) or "No refused record fits.")
    if counts["changed"]:
        raise typer.Exit(IntegrityError.exit_status)
    if counts["refused"] or counts["gone"]:
        raise typer.Exit(RefusedError.exit_status)


async def _read(
    settings: Settings, wanted: DeadLetterFilter
) -> tuple[list[DeadLetterRecord], dict[RecordId, Redrive]]:
    with progress_bar() as progress:
        return await select_dead_letters(settings, wanted, progress)


async def _documents(
    settings: Settings, letters: list[DeadLetterRecord], redrives: dict[RecordId, Redrive]
) -> AsyncGenerator[tuple[DeadLetterContent, dict[str, Any]]]:
    """Yield each dead letter with all that it carries, and the document of it."""
    async with aclosing(read_contents(settings, letters)) as contents:
        async for content in contents:
            letter = content.letter
            document = dead_letter_document(letter, _redrive_of(letter, redrives))
            yield content, document | content_document(content)


async def _print_contents(
    settings: Settings, letters: list[DeadLetterRecord], redrives: dict[RecordId, Redrive]
) -> int:
    count = 0
    async with aclosing(_documents(settings, letters, redrives)) as found:
        async for _, document in found:
            print_json(document)
            count += 1
    return count


async def _redrive(
    settings: Settings, wanted: DeadLetterFilter, *, again: bool, dry_run: bool, as_json: bool
) -> Counter[str]:
    counts: Counter[str] = Counter()
    with progress_bar() as progress:
        redriven = redrive(settings, wanted, again=again, dry_run=dry_run, progress=progress)
        async with aclosing(redriven) as results:
            async for result in results:
                counts[result.status] += 1
                # Most that fit were brought back long ago; only who names one wants to know.
                if as_json or wanted.sources or result.status != "redriven before":
                    _print_result(result, as_json=as_json)
    return counts


def _print_result(result: RedriveResult, *, as_json: bool) -> None:
    letter = result.letter
    document: dict[str, Any] = {
        "fate": result.status,
        "code": letter.code,
        "source": str(letter.identity),
        "redriven_as": str(result.redriven_as) if result.redriven_as is not None else None,
        "why": result.why,
    }
    shown = known(document)
    if as_json:
        print_json(shown)
    else:
        print_cells(shown.values())


def _place(text: str) -> RecordId:
    try:
        return RecordId.parse(text)
    except ValueError as error:
        raise InputError(f"SOURCE cannot be used: {error}.") from error


def _redrive_of(letter: DeadLetterRecord, redrives: dict[RecordId, Redrive]) -> Redrive | None:
    return redrives.get(letter.source) if letter.source is not None else None


DEAD_LETTERS_FILE = "letters.ndjson"

FILE_NAME_LIMIT_BYTES = 255
"""Of the file systems of Linux."""


async def export_to_folder(
    settings: Settings,
    letters: list[DeadLetterRecord],
    redrives: dict[RecordId, Redrive],
    folder: Path,
) -> int:
    """Write `letters` into `folder`, which is made or is empty; return how many.

    Raises:
        InputError: The folder cannot be written, or is not empty.
        BrokerError: The broker cannot be reached.
    """
    count = 0
    with input_faults(f"{folder} cannot be written"):
        _make_empty(folder)
        async with (
            aclosing(_documents(settings, letters, redrives)) as found,
            aiofiles.open(folder / DEAD_LETTERS_FILE, "x", encoding="utf-8") as lines,
        ):
            async for content, document in found:
                del document["value_base64"]
                if content.value is not None:
                    document["value_file"] = value_file_name(content.letter)
                    async with aiofiles.open(folder / document["value_file"], "wb") as file:
                        await file.write(content.value)
                await lines.write(json.dumps(document, ensure_ascii=False) + "\n")
                count += 1
    return count


def _make_empty(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    # A refused request may hold what the store redacts or withholds: readable by its owner only.
    folder.mkdir(mode=0o700, exist_ok=True)
    if any(folder.iterdir()):
        raise InputError(f"{folder} is not empty: name a new folder.")


def value_file_name(letter: DeadLetterRecord) -> str:
    """Return the name of the file for a value: by the refused record, else by the dead letter.

    Names of topics as Kafka takes them are names of files too, but for their length; anybody who
    may write a dead letter can name a topic of 249 characters in it.
    """
    for place in (letter.identity, letter.place):
        name = str(place).replace("/", "-") + ".value"
        if len(name) <= FILE_NAME_LIMIT_BYTES:
            break
    return name
