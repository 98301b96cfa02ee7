"""The pages of dead letters: which were written last, and one with what it carries."""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from pipeline.api.answers import ApiError
from pipeline.api.dependencies import ApiDeps
from pipeline.broker.reading.dead_letters import DeadLetterContent, NewestDeadLetters
from pipeline.core.dead_letters.carried_record import Header, bytes_of_name
from pipeline.core.dead_letters.letter import (
    DeadLetterRecord,
    dead_letter_code,
    dead_letter_headers,
    record_headers,
)
from pipeline.core.dead_letters.selection import DeadLetterFilter
from pipeline.core.dead_letters.shown import (
    SHOWN_CODES,
    hexdump,
    named_run_ids,
    part_hashes,
    readable_body,
)
from pipeline.core.record import RecordId
from pipeline.errors import BrokerError, IntegrityError, NotFoundError
from pipeline.page.rendering import moment_of, page
from pipeline.page.route import PageRoute
from pipeline.storage.reader import RunReader
from pipeline.topics import dead_letter_topics, request_topics

router = APIRouter(route_class=PageRoute)

LETTERS_A_PAGE: Final = 100
TEXT_LIMIT_CHARACTERS: Final = 20_000
HEX_LIMIT_BYTES: Final = 1024
_HEADER_LIMIT_CHARACTERS: Final = 1024
_HEADERS_LIMIT: Final = 100

Code = Annotated[str | None, Query(max_length=64)]
Source = Annotated[str | None, Query(max_length=500)]


@router.get("/dead-letters")
async def list_dead_letters(
    request: Request, deps: ApiDeps, code: Code = None, source: Source = None
) -> Response:
    """Return the dead letters that were written last, by their codes."""
    try:
        view = letters_view(await deps.broker.newest_dead_letters(), code or None, source or None)
    except BrokerError as error:
        return page(request, "dead_letters.html", 503, away=str(error))
    return page(request, "dead_letters.html", away=None, **view)


def letters_view(
    found: NewestDeadLetters, code: str | None, source: str | None = None
) -> dict[str, Any]:
    """Return what the page shows of the last dead letters, the last one first.

    Args:
        found: As far as one look goes.
        code: Only those of this code; None for all.
        source: Only those of the record `topic/partition/offset`; None for all.
    """
    letters = found.letters.selected(DeadLetterFilter())[::-1]
    shown = [
        letter
        for letter in letters
        if code in {None, letter.code} and source in {None, str(letter.source)}
    ]
    chosen = {"code": code, "source": source}
    return {
        "code": code,
        "source": source,
        "here": f"/dead-letters?{urlencode({k: v for k, v in chosen.items() if v})}".rstrip("?"),
        "codes": [
            (name, count, dead_letter_code(name).meaning)
            for name, count in Counter(letter.code for letter in letters).most_common()
        ],
        "letters": [(letter, moment_of(letter.timestamp_ms)) for letter in shown[:LETTERS_A_PAGE]],
        "count": len(shown),
        "unread": max(found.there - found.looked_at, 0),
    }


@router.get("/dead-letters/{topic}/{partition}/{offset}")
async def show_dead_letter(
    request: Request, deps: ApiDeps, topic: str, partition: str, offset: str
) -> Response:
    """Return one dead letter, whatever its bytes are."""
    prefix = deps.settings.prefix
    try:
        place = RecordId.parse(f"{topic}/{partition}/{offset}")
    except ValueError as error:
        raise _no_letter() from error
    if topic not in dead_letter_topics(prefix):
        raise _no_letter()
    try:
        content = await deps.broker.dead_letter(place)
    except BrokerError as error:
        return page(request, "dead_letter.html", 503, away=str(error), place=place)
    if content is None:
        raise _no_letter()
    withheld = await deps.transfer(why_withheld, deps.reader, content)
    view = letter_view(content, withheld, request_topics(prefix))
    return page(request, "dead_letter.html", away=None, place=place, **view)


def _no_letter() -> ApiError:
    message = "The broker has no dead letter there: there was none, or its time is over."
    return ApiError(404, "NOT_FOUND", message)


def why_withheld(reader: RunReader, content: DeadLetterContent) -> str | None:
    """Return why the value of a dead letter is not shown; None where it may be."""
    letter, value = content.letter, content.value
    if value is None:
        return None
    if letter.code not in SHOWN_CODES:
        return "Under this code it may be the request of a run that no machine may cut by."
    for run_id in sorted(named_run_ids(content.key, value)):
        try:
            status = reader.find(run_id).run.status
        except NotFoundError:
            continue
        except IntegrityError:
            return f"It names the run {run_id}, whose record is damaged."
        if status != "OK":
            return f"It names the run {run_id}, whose status is {status}."
    hashes = part_hashes(value)
    if hashes is None:
        return "It has too many parts to look up whether a verdict withholds one of them."
    if reader.withholds(hashes):
        return "A part of it is withheld by the verdict of a run."
    return None


def letter_view(
    content: DeadLetterContent, withheld: str | None, sendable: Sequence[str]
) -> dict[str, Any]:
    """Return what the page shows of a dead letter.

    Args:
        content: With all that it carries.
        withheld: Why its value is not shown; None where it may be.
        sendable: The topics that a record may be sent to again.
    """
    letter = content.letter
    code = dead_letter_code(letter.code)
    source = letter.source
    can_go_back = source is not None and source.topic in sendable and content.unsendable is None
    return {
        "letter": letter,
        "written_at": moment_of(letter.timestamp_ms),
        "came_at": moment_of(letter.source_timestamp_ms),
        "meaning": code.meaning,
        "way_out": code.way_out,
        "only_if_asked": code.only_if_asked,
        "redrive": redrive_command(letter) if can_go_back else None,
        "show": f"rmos dead-letters show {shlex.quote(str(letter.identity))}",
        "fault": content.fault,
        "own_headers": list(map(_header, record_headers(content.headers)[:_HEADERS_LIMIT])),
        "more_headers": max(len(record_headers(content.headers)) - _HEADERS_LIMIT, 0),
        "our_headers": list(map(_header, dead_letter_headers(content.headers)[:_HEADERS_LIMIT])),
        "withheld": withheld,
        **(_body(content.value) if withheld is None else {"form": "withheld"}),
    }


def redrive_command(letter: DeadLetterRecord) -> str:
    """Return the command that brings the record back, for a shell."""
    return f"rmos dead-letters redrive {shlex.quote(str(letter.identity))}"


def _body(value: bytes | None) -> Mapping[str, Any]:
    if value is None:
        return {"form": "none"}
    text = readable_body(value)
    if text is not None:
        return {
            "form": "text",
            "body": text[:TEXT_LIMIT_CHARACTERS],
            "is_cut": len(text) > TEXT_LIMIT_CHARACTERS,
        }
    dump = "\n".join(hexdump(value[:HEX_LIMIT_BYTES]))
    return {"form": "hex", "body": dump, "is_cut": len(value) > HEX_LIMIT_BYTES}


def _header(header: Header) -> tuple[str, str | None]:
    name, value = header
    return _text(bytes_of_name(name)), None if value is None else _text(value)


def _text(content: bytes) -> str:
    text = content.decode(errors="backslashreplace")
    cut = "…" if len(text) > _HEADER_LIMIT_CHARACTERS else ""
    return f"{text[:_HEADER_LIMIT_CHARACTERS]}{cut}"
