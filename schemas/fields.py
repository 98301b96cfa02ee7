"""The field types that all messages and files share: identifiers, hashes, times, texts."""

import re
from typing import Annotated, Any, Literal, TypeGuard

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

from schemas.timestamps import TIMESTAMP_PATTERN, normalise_timestamp

RUN_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
RESERVED_RUN_ID_PATTERN = r"^(diff|attachments)$|_advisory_|_advisory$"
ADVISORY_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
AUDIT_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
SHA256_PATTERN = r"^[0-9a-f]{64}$"
DATE_PATTERN = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
KIND_PATTERN = r"^[a-z0-9_]{1,64}$"
MIME_PATTERN = r"^[a-z0-9.+-]+/[a-z0-9.+-]+(; ?charset=[A-Za-z0-9-]+)?$"
LABEL_PATTERN = r"^[^\x00-\x1f\x7f-\x9f]*$"
FILENAME_PATTERN = r"^[^/\x00-\x1f\x7f-\x9f]*$"
LABEL_LIMIT_CHARACTERS = 200
MIME_LIMIT_CHARACTERS = 127
PROSE_LIMIT_CHARACTERS = 20_000
LARGEST_EXACT_INTEGER = 2**53 - 1
"""Largest integer that every JSON reader keeps exactly (RFC 8259 section 6)."""

RUN_ID_RULE = (
    "1 to 100 of A-Z, a-z, 0-9 and ._- that begin with a letter or a digit, not diff or "
    "attachments, without _advisory_ and not ending in _advisory"
)
"""What `is_run_id` asks for, in the words of a message."""

_RUN_ID = re.compile(RUN_ID_PATTERN[1:-1])
_AUDIT_ID = re.compile(AUDIT_ID_PATTERN[1:-1])
_ADVISORY_ID = re.compile(ADVISORY_ID_PATTERN[1:-1])
_SHA256 = re.compile(SHA256_PATTERN[1:-1])
_RESERVED_RUN_IDS = frozenset({"diff", "attachments"})


def is_audit_id(text: str) -> bool:
    """Return whether `text` may name an audit."""
    return _AUDIT_ID.fullmatch(text) is not None


def is_run_id(text: str) -> bool:
    """Return whether `text` may name a run: the pattern, and nothing a route or a file means."""
    return (
        _RUN_ID.fullmatch(text) is not None
        and "_advisory_" not in text
        and not text.endswith("_advisory")
        and text not in _RESERVED_RUN_IDS
    )


def is_advisory_id(text: str) -> bool:
    """Return whether `text` may name an advisory."""
    return _ADVISORY_ID.fullmatch(text) is not None


def is_sha256(value: object) -> TypeGuard[str]:
    """Return whether `value` is the text of a SHA-256 as we write it."""
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def _check_run_id(text: str) -> str:
    if not is_run_id(text):
        raise ValueError("reserved run_id")
    return text


def _check_date(text: str) -> str:
    # The time of day is one that exists on every date.
    normalise_timestamp(f"{text}T00:00:00Z")
    return text


class Frozen(BaseModel):
    """Base of every shape: strict types, unknown fields refused, values never changed."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=()
    )


RiskLevel = Literal["GREEN", "YELLOW", "RED", "UNKNOWN", "ERROR"]
RunStatus = Literal["OK", "BLOCKED", "ERROR"]
GcodeKnownBy = Literal["stored", "attached", "claimed"]
"""How the hash of a program is known: `pipeline.core.runs.cut_program`."""

RISK_LEVELS: frozenset[str] = frozenset({"GREEN", "YELLOW", "RED", "UNKNOWN", "ERROR"})


def normalise_risk(text: str) -> str:
    """Return the risk level that `text` names, upper-cased and stripped; UNKNOWN if none."""
    level = text.strip().upper()
    return level if level in RISK_LEVELS else "UNKNOWN"


def _normalise_risk_value(value: object) -> object:
    return normalise_risk(value) if isinstance(value, str) else value


RunId = Annotated[
    str,
    Field(
        pattern=RUN_ID_PATTERN,
        description="Chosen by the producer; the key of the record. Not `diff` or `attachments`; "
        "`_advisory_` is not in it, and `_advisory` not at its end.",
        json_schema_extra={"not": {"pattern": RESERVED_RUN_ID_PATTERN}},
    ),
    AfterValidator(_check_run_id),
]
AdvisoryId = Annotated[
    str, Field(pattern=ADVISORY_ID_PATTERN, description="Unique within its run.")
]
AuditId = Annotated[str, Field(pattern=AUDIT_ID_PATTERN)]
Sha256 = Annotated[str, Field(pattern=SHA256_PATTERN, description="SHA-256, lower-case hex.")]
UtcTimestamp = Annotated[
    str,
    Field(
        description="A time that exists, with Z or an offset up to 23:59; hours to 23, minutes "
        "and seconds to 59; 2000-01-01 to 2099-12-31 in UTC. Stored in UTC with Z, its fraction "
        "cut to six digits and left out if zero.",
        json_schema_extra={"pattern": TIMESTAMP_PATTERN},
    ),
    AfterValidator(normalise_timestamp),
]
"""A time of the form of RFC 3339, 2000 to 2099; its value is the normalised text."""

UtcDate = Annotated[
    str,
    Field(
        description="A date that exists, 2000-01-01 to 2099-12-31.",
        json_schema_extra={"pattern": DATE_PATTERN},
    ),
    AfterValidator(_check_date),
]

Label = Annotated[
    str, Field(pattern=LABEL_PATTERN, min_length=1, max_length=LABEL_LIMIT_CHARACTERS)
]
"""1 to 200 characters, none of Unicode category Cc."""

Prose = Annotated[str, Field(max_length=PROSE_LIMIT_CHARACTERS)]
Kind = Annotated[str, Field(pattern=KIND_PATTERN)]
Mime = Annotated[str, Field(pattern=MIME_PATTERN, max_length=MIME_LIMIT_CHARACTERS)]
Filename = Annotated[
    str, Field(pattern=FILENAME_PATTERN, min_length=1, max_length=LABEL_LIMIT_CHARACTERS)
]
SizeBytes = Annotated[
    int,
    Field(ge=0, le=LARGEST_EXACT_INTEGER, description="Written without a fraction or an exponent."),
]
Score = Annotated[float, Field(ge=0, le=100)]
FreeForm = dict[str, Any]
"""A JSON object whose content is the producer's; stored as it came."""

AnyJson = JsonValue
"""Any JSON value."""

LenientRisk = Annotated[
    RiskLevel,
    BeforeValidator(_normalise_risk_value, json_schema_input_type=str),
    Field(
        description="GREEN, YELLOW, RED, UNKNOWN or ERROR; upper-cased and stripped before it is "
        "read. Any other text counts as UNKNOWN."
    ),
]
"""Upper-cased and stripped; a text that is none of the five is UNKNOWN."""
