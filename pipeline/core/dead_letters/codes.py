"""What each code of a dead letter means to an operator, and whether judging again can help."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class LetterCode:
    """One code.

    Attributes:
        meaning: What was found.
        way_out: What to do.
        only_if_asked: Another judgement would say the same, or raise an alarm, until somebody
            has mended something else: it is redriven only where its code or record is named.
    """

    meaning: str
    way_out: str
    only_if_asked: bool = False


_SEND_AGAIN = "Its producer sends a corrected request."

LETTER_CODES: Final[dict[str, LetterCode]] = {
    "TOMBSTONE": LetterCode(
        "The record has no value.",
        "Nothing is missing: no program can make anything of it.",
        only_if_asked=True,
    ),
    "TOO_LARGE": LetterCode(
        "The value is above the limit of its schema version.",
        "Its producer sends large blobs as attachments.",
    ),
    "INVALID_JSON": LetterCode("The value is not one object in strict JSON.", _SEND_AGAIN),
    "INVALID_IDENTITY": LetterCode(
        "run_id or created_at_utc is missing or not of its pattern.", _SEND_AGAIN
    ),
    "KEY_MISMATCH": LetterCode(
        "The record's key is not the run_id of its value.",
        "Its producer sends the request again under the right key.",
    ),
    "UNSUPPORTED_VERSION": LetterCode(
        "This program does not know the schema_version.",
        "Install the release that knows it, then redrive.",
    ),
    "INTERNAL_ERROR": LetterCode(
        "Our program failed on this record.", "Report it; once it is corrected, redrive."
    ),
    "INVALID_ADVISORY": LetterCode("A field of the advisory is missing or wrong.", _SEND_AGAIN),
    "INVALID_LEGACY_RUN": LetterCode(
        "It is not what rmos migrate run publishes.",
        "Carry the row over with rmos migrate run; nothing else writes this topic.",
    ),
    "INVALID_AUDIT": LetterCode("A field of the audit request is missing or wrong.", _SEND_AGAIN),
    "RUN_CONFLICT": LetterCode(
        "Another request has made a run of this run_id.",
        "The first stays. Its producer sends the changed request under a new run_id.",
        only_if_asked=True,
    ),
    "ADVISORY_CONFLICT": LetterCode(
        "Another advisory has this advisory_id.",
        "The first stays. Its engine publishes under a new advisory_id.",
        only_if_asked=True,
    ),
    "ARTIFACT_CORRUPT": LetterCode(
        "The file in the store is not the file that was written.",
        "Put the file back first; then redrive for an event that says so.",
        only_if_asked=True,
    ),
    "RUN_NOT_FOUND": LetterCode(
        "The run of this advisory had not come by the last retry.",
        "The advisory keeps its id and is linked by itself when the run comes.",
        only_if_asked=True,
    ),
}

_UNKNOWN = LetterCode(
    "This program does not know the code.", "See the release that wrote the dead letter."
)


def letter_code(code: str) -> LetterCode:
    """Return what `code` means."""
    return LETTER_CODES.get(code, _UNKNOWN)
