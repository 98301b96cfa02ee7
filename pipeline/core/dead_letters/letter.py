"""A dead letter: an unchanged record that can never succeed, with headers for the reason.

Our headers are the last ones, from the last `rmos-error-code` on. What comes before is the
record's own, whatever its names: a producer may send `rmos-error-code` too. Any record of a dead
letter topic can be read, be it ours or not.

The code of the reason has a meaning for an operator, a way out, and a rule for redrives.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from pipeline.core.dead_letters.carried_record import (
    AllHeaders,
    CarriedRecord,
    Header,
    ReadContent,
    carried_record,
    split_headers,
)
from pipeline.core.record import RecordId, RecordSource
from schemas.dead_letter import ERROR_MESSAGE_LIMIT_BYTES, CutDeadLetterHeaders
from schemas.fields import is_sha256

OUR_HEADERS = frozenset(
    field.alias for field in CutDeadLetterHeaders.model_fields.values() if field.alias is not None
)
NO_CODE = "UNREADABLE"
"""Shown as the code of what is on the topic and is no dead letter of ours."""

KEY_LIMIT_CHARACTERS = 200
"""So much of a key is kept for lists; the whole key is in the dead letter."""

_FIRST_OF_OURS = "rmos-error-code"
_CODE = re.compile(r"[A-Z_]{1,64}")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")

Body = Literal["carried", "at its source", "none"]


@dataclass(frozen=True, slots=True)
class DeadLetterRecord:
    """The fields of a dead letter in a list; its key, value and headers stay on the topic.

    Attributes:
        place: Where the dead letter is.
        timestamp_ms: When it was written, by the worker's clock.
        source: The record that it is about; None where its headers do not name it.
        source_timestamp_ms: The broker time of that record.
        code: Why the record was refused; `NO_CODE` where its headers do not name it.
        message: The same in one sentence.
        group: The consumer group that gave up on it.
        attempt: 1 at first; each redrive adds 1.
        key: The record's, as text, cut.
        body: Whether the value is in the dead letter, only at its source, or was never there.
        body_sha256: Of the value, where there is one.
        size_bytes: Of the value.
        key_sha256: Of a key that is only at its source; None where the dead letter carries it.
        headers_sha256: Of the headers, where not all are carried.
        letters: How many dead letters there are of this record, itself included.
    """

    place: RecordId
    timestamp_ms: int
    source: RecordId | None
    source_timestamp_ms: int | None
    code: str
    message: str
    group: str | None
    attempt: int
    key: str | None
    body: Body
    body_sha256: str | None
    size_bytes: int
    key_sha256: str | None = None
    headers_sha256: str | None = None
    letters: int = 1

    @property
    def identity(self) -> RecordId:
        """What names it: the record that was refused, else its own place."""
        return self.source or self.place

    @property
    def is_whole(self) -> bool:
        """Whether the dead letter carries all of the record."""
        return (
            self.body != "at its source" and self.key_sha256 is None and self.headers_sha256 is None
        )


def read_dead_letter(
    place: RecordId,
    timestamp_ms: int,
    key: ReadContent | None,
    value: ReadContent | None,
    headers: Sequence[Header],
) -> DeadLetterRecord:
    """Return the dead letter in a record of its topic, be it one of ours or not."""
    headers, _ = split_headers(headers)
    key = key if isinstance(key, bytes) else None
    value = value if isinstance(value, bytes) else None
    ours = {name: _text(content) for name, content in headers[_ours_begin(headers) :]}
    code = ours.get(_FIRST_OF_OURS, "")
    size_bytes = _number(ours.get("rmos-body-size"))
    return DeadLetterRecord(
        place,
        timestamp_ms,
        _source(ours),
        _number(ours.get("rmos-source-timestamp")),
        code if _CODE.fullmatch(code) else NO_CODE,
        ours.get("rmos-error-message", "")[:ERROR_MESSAGE_LIMIT_BYTES],
        ours.get("rmos-group") or None,
        _number(ours.get("rmos-attempt")) or 1,
        None if key is None else _text(key[: 4 * KEY_LIMIT_CHARACTERS])[:KEY_LIMIT_CHARACTERS],
        _body(value, size_bytes),
        _digest(ours, "rmos-body-sha256"),
        len(value) if value is not None else size_bytes or 0,
        _digest(ours, "rmos-key-sha256"),
        _digest(ours, "rmos-headers-sha256"),
    )


def record_headers(headers: Sequence[Header]) -> list[Header]:
    """Return the headers of the record that a dead letter is about: all but ours, in order."""
    begin = _ours_begin(headers)
    return [*headers[:begin], *(each for each in headers[begin:] if each[0] not in OUR_HEADERS)]


def dead_letter_headers(headers: Sequence[Header]) -> list[Header]:
    """Return the headers of a dead letter that are ours."""
    return [each for each in headers[_ours_begin(headers) :] if each[0] in OUR_HEADERS]


def _ours_begin(headers: Sequence[Header]) -> int:
    """Return where our headers begin; at the end where there are none."""
    for index in range(len(headers) - 1, -1, -1):
        if headers[index][0] == _FIRST_OF_OURS:
            return index
    return len(headers)


def _text(content: bytes | None) -> str:
    return (content or b"").decode(errors="backslashreplace")


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and _NUMBER.fullmatch(text) else None


def _digest(ours: dict[str, str], name: str) -> str | None:
    text = ours.get(name, "")
    return text if is_sha256(text) else None


def _source(ours: dict[str, str]) -> RecordId | None:
    parts = [ours.get(f"rmos-source-{part}", "") for part in ("topic", "partition", "offset")]
    try:
        return RecordId.parse("/".join(parts))
    except ValueError:
        return None


def _body(value: bytes | None, size_bytes: int | None) -> Body:
    if value is not None:
        return "carried"
    return "none" if size_bytes is None else "at its source"


_NOT_PRINTABLE_ASCII = re.compile(r"[^ -~]")
_ATTEMPT = re.compile(rb"[1-9][0-9]{0,8}")

Carry = Callable[
    [ReadContent | None, ReadContent | None, Sequence[Header], AllHeaders | None], CarriedRecord
]
"""Decides how much of a record a dead letter has: `carried_record`, or `summarized_record`."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What is sent to the dead letter topic.

    Attributes:
        key: The record's own; None also where it is too large, and the source topic keeps it.
        value: The same.
        headers: The record's own, then ours; of two with one name the last counts.
    """

    key: bytes | None
    value: bytes | None
    headers: list[Header]


def dead_letter(
    record: tuple[ReadContent | None, ReadContent | None, Sequence[Header]],
    source: RecordSource,
    timestamp_ms: int,
    *,
    code: str,
    message: str,
    group: str,
    all_headers: AllHeaders | None = None,
    carry: Carry = carried_record,
) -> DeadLetter:
    """Return the dead letter of a record.

    Args:
        record: Key, value and headers as the broker gave them.
        source: Where the broker keeps the record.
        timestamp_ms: Its broker time.
        code: Why it can never succeed.
        message: The same in one sentence; what is not printable ASCII becomes `?`.
        group: The consumer group that gave up on it.
        all_headers: What is said of its headers, where not all were kept as it was read.
        carry: How much of the record the dead letter has.
    """
    key, value, headers = record
    carried = carry(key, value, headers, all_headers)
    ours = {
        "rmos-error-code": code,
        "rmos-error-message": _NOT_PRINTABLE_ASCII.sub("?", message)[:ERROR_MESSAGE_LIMIT_BYTES],
        "rmos-source-topic": source.id.topic,
        "rmos-source-partition": str(source.id.partition),
        "rmos-source-offset": str(source.id.offset),
        "rmos-source-timestamp": str(max(timestamp_ms, 0)),
        "rmos-group": group,
        "rmos-attempt": _attempt(headers),
        **carried.summary,
    }
    added = [(name, text.encode()) for name, text in ours.items()]
    return DeadLetter(carried.key, carried.value, [*carried.headers, *added])


def _attempt(headers: Sequence[tuple[str, bytes | None]]) -> str:
    """Return how often the record has been tried: the number of its last redrive, else 1."""
    for name, value in reversed(headers):
        if name == "rmos-attempt" and value is not None and _ATTEMPT.fullmatch(value):
            return value.decode()
    return "1"


@dataclass(frozen=True, slots=True)
class DeadLetterCode:
    """One code.

    Attributes:
        meaning: What was found.
        way_out: What to do.
        only_if_asked: Another verdict would be the same, or raise an alarm, until somebody
            has mended something else: it is redriven only where its code or record is named.
    """

    meaning: str
    way_out: str
    only_if_asked: bool = False


_SEND_AGAIN = "Its producer sends a corrected request."

DEAD_LETTER_CODES: Final[dict[str, DeadLetterCode]] = {
    "TOMBSTONE": DeadLetterCode(
        "The record has no value.",
        "Nothing is missing: no program can make anything of it.",
        only_if_asked=True,
    ),
    "TOO_LARGE": DeadLetterCode(
        "The value is above the limit of its schema version.",
        "Its producer sends large blobs as attachments.",
    ),
    "INVALID_JSON": DeadLetterCode("The value is not one object in strict JSON.", _SEND_AGAIN),
    "INVALID_IDENTITY": DeadLetterCode(
        "run_id or created_at_utc is missing or not of its pattern.", _SEND_AGAIN
    ),
    "KEY_MISMATCH": DeadLetterCode(
        "The record's key is not the run_id of its value.",
        "Its producer sends the request again under the right key.",
    ),
    "UNSUPPORTED_VERSION": DeadLetterCode(
        "This program does not know the schema_version.",
        "Install the release that knows it, then redrive.",
    ),
    "INTERNAL_ERROR": DeadLetterCode(
        "Our program failed on this record.", "Report it; once it is corrected, redrive."
    ),
    "INVALID_ADVISORY": DeadLetterCode("A field of the advisory is missing or wrong.", _SEND_AGAIN),
    "INVALID_LEGACY_RUN": DeadLetterCode(
        "It is not what rmos migrate run publishes.",
        "Carry the row over with rmos migrate run; nothing else writes this topic.",
    ),
    "INVALID_AUDIT": DeadLetterCode(
        "A field of the audit request is missing or wrong.", _SEND_AGAIN
    ),
    "RUN_CONFLICT": DeadLetterCode(
        "Another request has made a run of this run_id.",
        "The first stays. Its producer sends the changed request under a new run_id.",
        only_if_asked=True,
    ),
    "ADVISORY_CONFLICT": DeadLetterCode(
        "Another advisory has this advisory_id.",
        "The first stays. Its engine publishes under a new advisory_id.",
        only_if_asked=True,
    ),
    "ARTIFACT_CORRUPT": DeadLetterCode(
        "The file in the store is not the file that was written.",
        "Put the file back first; then redrive for an event that says so.",
        only_if_asked=True,
    ),
    "RUN_NOT_FOUND": DeadLetterCode(
        "The run of this advisory had not come in time.",
        "The advisory keeps its id and is linked by itself when the run comes.",
        only_if_asked=True,
    ),
}

_UNKNOWN = DeadLetterCode(
    "This program does not know the code.", "See the release that wrote the dead letter."
)


def dead_letter_code(code: str) -> DeadLetterCode:
    """Return what `code` means."""
    return DEAD_LETTER_CODES.get(code, _UNKNOWN)
