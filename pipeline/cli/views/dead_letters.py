"""The output of a dead letter: a document for programs, text for people.

All of its content comes from others, so nothing in it may act on a terminal.
"""

import base64
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pipeline.broker.reading.dead_letters import DeadLetterContent
from pipeline.cli.options import moment_text
from pipeline.cli.views.terminal import known
from pipeline.core.dead_letters.carried_record import Header, bytes_of_name
from pipeline.core.dead_letters.letter import DeadLetterRecord, dead_letter_code
from pipeline.core.dead_letters.redrive import Redrive
from pipeline.core.dead_letters.shown import hexdump, readable_body
from pipeline.core.visible_text import visible

TEXT_LIMIT_CHARACTERS = 20_000
"""So much of a body that is text is shown."""

HEXDUMP_LIMIT_BYTES = 1024
HEADER_LIMIT_CHARACTERS = 1024
"""So much of a name of a header is shown, and so much of its value."""

HEADERS_LIMIT = 100
"""So many headers are shown; of more, the first half and the last, where ours are."""

LIST_COLUMNS = (
    "refused_at_utc",
    "code",
    "source",
    "key",
    "attempt",
    "letters",
    "size_bytes",
    "redriven_as",
)


def dead_letter_document(letter: DeadLetterRecord, redrive: Redrive | None) -> dict[str, Any]:
    """Return the fields of a dead letter in a list; absent values are left out."""
    recorded_ms = letter.source_timestamp_ms
    document: dict[str, Any] = {
        "source": _name(letter.source),
        "dead_letter": str(letter.place),
        "refused_at_utc": moment_text(letter.timestamp_ms),
        "record_at_utc": None if recorded_ms is None else moment_text(recorded_ms),
        "code": letter.code,
        "message": letter.message,
        "group": letter.group,
        "attempt": letter.attempt,
        "letters": letter.letters,
        "key": letter.key,
        "body": letter.body,
        "body_sha256": letter.body_sha256,
        "size_bytes": letter.size_bytes,
        "key_sha256": letter.key_sha256,
        "headers_sha256": letter.headers_sha256,
        "redriven_as": _name(redrive.redriven_as) if redrive is not None else None,
    }
    return known(document)


def list_row(document: dict[str, Any]) -> list[Any]:
    """Return the cells of a dead letter in a list."""
    named = {"source": document["dead_letter"], **document}
    return [named.get(column, "-") for column in LIST_COLUMNS]


def counted_codes(letters: Iterable[DeadLetterRecord]) -> dict[str, int]:
    """Return how many dead letters have which code, the most first."""
    return dict(Counter(letter.code for letter in letters).most_common())


def content_document(content: DeadLetterContent) -> dict[str, Any]:
    """Return key, value and headers of a dead letter, each byte as it is."""
    return {
        "key_base64": _base64(content.key),
        "value_base64": _base64(content.value),
        "headers": [_header_document(header) for header in content.headers],
        **({"fault": content.fault} if content.fault is not None else {}),
    }


def dead_letter_lines(content: DeadLetterContent, redrive: Redrive | None) -> Iterator[str]:
    """Yield what a person is shown of one dead letter: why, where, headers and body."""
    letter = content.letter
    code = dead_letter_code(letter.code)
    yield f"{letter.code}: {code.meaning}"
    yield f"{visible(letter.message)}"
    yield f"What to do: {code.way_out}"
    yield ""
    shown = dead_letter_document(letter, redrive)
    width = max(map(len, shown))
    for name, value in shown.items():
        if name not in ("code", "message"):
            yield f"{name:<{width}}  {visible(str(value))}"
    yield ""
    yield "headers"
    yield from _header_lines(content.headers)
    yield ""
    yield from body_lines(content)


def body_lines(content: DeadLetterContent) -> Iterator[str]:
    """Yield a body: JSON indented, other text as it is, anything else in hexadecimal; cut."""
    if content.fault is not None:
        yield visible(content.fault)
    value = content.value
    if value is None:
        yield "no body"
        return
    text = readable_body(value)
    if text is None:
        yield f"body, {len(value):,} bytes, not text"
        yield from hexdump(value[:HEXDUMP_LIMIT_BYTES])
        is_cut = len(value) > HEXDUMP_LIMIT_BYTES
    else:
        yield f"body, {len(value):,} bytes"
        # Set in, so that no line of a body can be taken for one of ours.
        yield from (f"  {visible(line)}" for line in text[:TEXT_LIMIT_CHARACTERS].split("\n"))
        is_cut = len(text) > TEXT_LIMIT_CHARACTERS
    if is_cut:
        yield "... cut; rmos dead-letters export writes all of it"


def _header_lines(headers: Sequence[Header]) -> Iterator[str]:
    half = HEADERS_LIMIT // 2
    left_out = max(0, len(headers) - HEADERS_LIMIT)
    for header in headers[: half if left_out else None]:
        yield f"  {visible(_header_text(header))}"
    if left_out:
        yield f"  ... {left_out:,} more; rmos dead-letters export writes all of them"
        yield from (f"  {visible(_header_text(header))}" for header in headers[-half:])


def _header_text(header: Header) -> str:
    name, value = header
    shown = _header_part(bytes_of_name(name))
    return f"{shown} (no value)" if value is None else f"{shown}: {_header_part(value)}"


def _header_part(content: bytes) -> str:
    text = content.decode(errors="backslashreplace")
    cut = "..." if len(text) > HEADER_LIMIT_CHARACTERS else ""
    return f"{text[:HEADER_LIMIT_CHARACTERS]}{cut}"


def _header_document(header: Header) -> dict[str, str | None]:
    name, value = header
    raw = bytes_of_name(name)
    document = {
        "name": raw.decode(errors="backslashreplace"),
        "value_base64": _base64(value),
    }
    try:
        raw.decode()
    except UnicodeDecodeError:
        document["name_base64"] = _base64(raw)
    return document


def _base64(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode()


def _name(place: object | None) -> str | None:
    return None if place is None else str(place)
