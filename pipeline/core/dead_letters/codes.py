"""The meaning of each code of a dead letter for an operator, and whether a redrive can help."""

from dataclasses import dataclass
from typing import Final


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
