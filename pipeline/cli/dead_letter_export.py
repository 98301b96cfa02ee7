"""Dead letters as files: each value one of its own, and a line about each in `letters.ndjson`."""

import json
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from pathlib import Path

import aiofiles

from pipeline.cli.views.dead_letters import content_document, dead_letter_document
from pipeline.core.dead_letters.letter import DeadLetterRecord
from pipeline.core.dead_letters.redrive import Redrive
from pipeline.core.record import RecordId
from pipeline.errors import InputError
from pipeline.recovery.dead_letters.reading import read_contents
from pipeline.settings import Settings

DEAD_LETTERS_FILE = "letters.ndjson"

FILE_NAME_LIMIT_BYTES = 255
"""Of the file systems of Linux."""


async def export_to_folder(
    settings: Settings,
    letters: Sequence[DeadLetterRecord],
    redrives: Mapping[RecordId, Redrive],
    folder: Path,
) -> int:
    """Write `letters` into `folder`, which is made or is empty; return how many.

    Raises:
        InputError: The folder cannot be written, or is not empty.
        BrokerError: The broker cannot be reached.
    """
    try:
        _make_empty(folder)
        return await _write(settings, letters, redrives, folder)
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}.") from error


def _make_empty(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    # A refused request may hold what the store redacts or withholds: for nobody else's eyes.
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


async def _write(
    settings: Settings,
    letters: Sequence[DeadLetterRecord],
    redrives: Mapping[RecordId, Redrive],
    folder: Path,
) -> int:
    count = 0
    async with (
        aclosing(read_contents(settings, letters)) as contents,
        aiofiles.open(folder / DEAD_LETTERS_FILE, "x", encoding="utf-8") as lines,
    ):
        async for content in contents:
            letter = content.letter
            document = dead_letter_document(letter, redrives.get(letter.identity))
            document |= content_document(content)
            value = document.pop("value_base64")
            if value is not None and content.value is not None:
                document["value_file"] = value_file_name(letter)
                async with aiofiles.open(folder / document["value_file"], "wb") as file:
                    await file.write(content.value)
            await lines.write(json.dumps(document, ensure_ascii=False) + "\n")
            count += 1
    return count
