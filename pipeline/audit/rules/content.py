"""Faults that one artifact or link shows by itself: form, hashes, path, blobs, time.

Everything here follows from the bytes of the file, its path, and the broker's time in its leaf. A
producer may date a record as it likes, so a record that is dated back is accepted as any other. The
broker's time, which the leaf keeps, says when it came.

`check_artifact_by_rule` is the definition. `clean_artifact` gives the value of an artifact without
a fault in one pass, if it has only what most artifacts have; otherwise the rule decides.
"""

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, NamedTuple, NotRequired, TypedDict

import msgspec
import orjson
from pydantic import BaseModel, ValidationError

from pipeline.audit.rules.finding import Finding
from pipeline.core.hashing import sha256_of_json, sha256_of_text
from pipeline.core.json.canonical import canonical_json, has_small_number
from pipeline.core.json.strict import InvalidJsonError, parse_object
from pipeline.core.layout import (
    ArtifactPath,
    LinkPath,
    artifact_path,
    attachment_path,
    parse_path,
    quarantine_path,
)
from pipeline.core.runs.artifact_parts import is_shown
from pipeline.core.runs.cut_program import attachment_at_gcode_path
from pipeline.core.runs.verdict import CleanContext, CleanOutputs, Label, hashes_of_parts, written
from pipeline.core.violations import first_difference
from schemas.advisory_link import AdvisoryLink
from schemas.fields import (
    PROSE_LIMIT_CHARACTERS,
    RiskLevel,
    RunStatus,
    is_run_id,
    is_sha256,
)
from schemas.run_artifact import RunArtifact
from schemas.timestamps import microseconds_since_epoch, parse_timestamp

LATE_SECONDS: Final = 86_400
"""A record may come so long after its created_at_utc: a day without the network."""

FUTURE_SECONDS: Final = 300
"""A record may be dated so long after the broker's clock: two clocks that differ."""

_DAY_US: Final = 86_400_000_000
_HASHED: Final = {"toolpaths": "toolpaths_sha256", "opplan_json": "opplan_sha256"}


class ContentCheck(NamedTuple):
    """What a file shows.

    Attributes:
        findings: What is wrong with it.
        document: Its value; None where it is not of its form.
        blobs: Paths of the blobs that it names, each once.
    """

    findings: list[Finding]
    document: dict[str, Any] | None = None
    blobs: tuple[str, ...] = ()


def check_artifact(path: str, content: bytes) -> ContentCheck:
    """Check the file of a run by itself; whose it is as well, where `path` is that of an artifact.

    Args:
        path: As the layout writes it, as far as the file lies as in a store.
        content: Its bytes.
    """
    document = clean_artifact(content)
    if document is None:
        return check_artifact_by_rule(path, content)
    return _checked_at(path, document, [])


def check_artifact_by_rule(path: str, content: bytes) -> ContentCheck:
    """Check the file of a run by the definition itself; arguments as of `check_artifact`."""
    document = _read(content, RunArtifact)
    if isinstance(document, str):
        return _unreadable(path, "the canonical JSON of an artifact", document)
    return _checked_at(path, document, check_hashes(path, document))


def _checked_at(path: str, document: dict[str, Any], findings: list[Finding]) -> ContentCheck:
    own = artifact_path(document["created_at_utc"], document["run_id"])
    if own != path and isinstance(parse_path(path), ArtifactPath):
        findings.append(Finding("PATH_DIFFERS", path, f"the artifact of {path}", f"that of {own}"))
    return ContentCheck(findings, document, blobs_of_artifact(document))


def check_link(path: str, content: bytes) -> ContentCheck:
    """Check the file of a link by itself; arguments as of `check_artifact`.

    Which date's folder it belongs to follows from its run alone.
    """
    document = _read(content, AdvisoryLink)
    if isinstance(document, str):
        return _unreadable(path, "the canonical JSON of a link", document)
    findings, place = [], parse_path(path)
    if isinstance(place, LinkPath):
        own = LinkPath(place.date, document["run_id"], document["advisory_id"])
        if own != place:
            found = Finding("PATH_DIFFERS", path, f"the link of {place}", f"that of {own}")
            findings.append(found)
    sha256 = document.get("content_sha256")
    return ContentCheck(findings, document, () if sha256 is None else (attachment_path(sha256),))


_Prose = Annotated[str, msgspec.Meta(max_length=PROSE_LIMIT_CHARACTERS)]
_Percent = msgspec.Meta(ge=0, le=100)
_Nothing = Annotated[list[Any], msgspec.Meta(max_length=0)]


class _CleanDecision(TypedDict):
    risk_level: RiskLevel
    score: NotRequired[Annotated[int, _Percent] | Annotated[float, _Percent]]
    block_reason: NotRequired[_Prose]
    warnings: NotRequired[list[_Prose]]
    details: NotRequired[dict[str, Any]]


class _CleanProvenance(TypedDict):
    request_sha256: str
    withheld: NotRequired[list[str]]
    version_stamps_missing: NotRequired[list[str]]


class _CleanArtifact(CleanContext):
    """The fields of `RunArtifact` that a clean one has besides."""

    schema_version: Literal["rmos.run_artifact/2"]
    status: RunStatus
    event_type: Label
    request_summary: dict[str, Any]
    feasibility: dict[str, Any]
    decision: _CleanDecision
    hashes: dict[str, str]
    outputs: CleanOutputs
    attachments: _Nothing
    advisory_inputs: _Nothing
    meta: dict[str, Any]
    provenance: _CleanProvenance


_decode: Callable[[bytes], Any] = msgspec.json.Decoder(_CleanArtifact).decode
_WITH_NUMBERS: Final = ("feasibility", "request_summary", "decision", "meta")


def clean_artifact(content: bytes) -> dict[str, Any] | None:
    """Return the value of an artifact that is without a fault; None where the rule must decide."""
    try:
        document: dict[str, Any] = _decode(content)
        outputs = document["outputs"]
        parts = {name: written(document[name]) for name in _WITH_NUMBERS}
        payloads = {name: written(outputs[name]) for name in _HASHED if name in outputs}
        whole = document | {name: orjson.Fragment(part) for name, part in parts.items()}
        whole["outputs"] = outputs | {n: orjson.Fragment(part) for n, part in payloads.items()}
        parts |= payloads
        # What the types do not name, and a key that comes twice, was dropped and is missed here.
        if written(whole) != content or has_small_number(b",".join(parts.values())):
            return None
        parse_timestamp(document["created_at_utc"])
    except (ValueError, TypeError, RecursionError):
        # Not of the types, no time that exists, an integer above 64 bits, or very deep.
        return None
    is_clean = (
        hashes_of_parts(outputs, parts) == document["hashes"]
        and is_run_id(document["run_id"])
        and is_sha256(document["provenance"]["request_sha256"])
        and "".join([each for each in document.values() if type(each) is str]).isprintable()
    )
    return document if is_clean else None


def check_hashes(path: str, document: dict[str, Any]) -> list[Finding]:
    """Compute again every hash that an artifact keeps; a payload and its hash go together."""
    kept = document["hashes"]
    computed = _computed_hashes(document)
    if kept == computed:
        return []
    return [
        Finding(
            "HASH_DIFFERS",
            path,
            f"{name} {computed.get(name, 'left out, as there is nothing to hash')}",
            kept.get(name) or "none",
        )
        for name in sorted(kept.keys() | computed.keys())
        if kept.get(name) != computed.get(name)
    ]


def _computed_hashes(document: dict[str, Any]) -> dict[str, str]:
    outputs = document["outputs"]
    computed = {"feasibility_sha256": sha256_of_json(document["feasibility"])}
    computed |= {
        name: sha256_of_json(outputs[payload])
        for payload, name in _HASHED.items()
        if payload in outputs
    }
    if outputs.get("gcode_text") is not None:
        computed["gcode_sha256"] = sha256_of_text(outputs["gcode_text"])
    elif "gcode_sha256" in document["hashes"] and (sha256 := attachment_at_gcode_path(document)):
        # The bytes of the blob are compared with its name, which is this hash. A producer may name
        # its own attachment by its path; then no G-code came, and there is nothing to hash.
        computed["gcode_sha256"] = sha256
    return computed


def blobs_of_artifact(document: dict[str, Any]) -> tuple[str, ...]:
    """Return the paths of the blobs that an artifact names: its attachments, and what it hides."""
    paths = [attachment_path(ref["sha256"]) for ref in document["attachments"]]
    if not is_shown(document):
        paths.append(quarantine_path(document["provenance"]["request_sha256"]))
    return tuple(dict.fromkeys(paths))


def _read(content: bytes, shape: type[BaseModel]) -> dict[str, Any] | str:
    """Return the value of a file of `shape`, or in a few words why it is none."""
    try:
        document, canonical = _parse(content)
        # The model checks the shape; the document keeps what was written.
        shape.model_validate(document)
    except InvalidJsonError as error:
        return str(error)
    except ValidationError as error:
        return first_difference(error)
    if canonical != content:
        return "JSON that is written otherwise"
    return document


def _parse(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the object that `content` holds and its canonical bytes; twice as fast where they fit.

    What has the canonical bytes of its own value repeats no key and cuts no number, so the strict
    parser has nothing left to refuse.
    """
    try:
        value = orjson.loads(content)
        if isinstance(value, dict) and canonical_json(value) == content:
            return value, content
    except ValueError:
        pass
    return parse_object(content)


def _unreadable(path: str, expected: str, found: str) -> ContentCheck:
    return ContentCheck([Finding("FILE_UNREADABLE", path, expected, found)])


def check_time(path: str, created_at_utc: str, broker_ms: int) -> list[Finding]:
    """Return what is wrong with a record's own time, given when the broker got it.

    Args:
        path: Of its file.
        created_at_utc: Of the file.
        broker_ms: Broker time in ms since 1970; below zero where the broker gave none.
    """
    created_us = microseconds_since_epoch(parse_timestamp(created_at_utc))
    return _check_time(path, created_us, created_us, created_at_utc, broker_ms)


def check_date(path: str, date: str, broker_ms: int) -> list[Finding]:
    """Return what is wrong with the date of a path: a time on that day that would fit is taken.

    For a pass that does not read the files.
    """
    first_us = microseconds_since_epoch(parse_timestamp(f"{date}T00:00:00Z"))
    return _check_time(path, first_us, first_us + _DAY_US - 1, date, broker_ms)


def _check_time(
    path: str, earliest_us: int, latest_us: int, dated: str, broker_ms: int
) -> list[Finding]:
    if broker_ms < 0:
        return []
    behind_us = broker_ms * 1000 - latest_us
    ahead_us = earliest_us - broker_ms * 1000
    if behind_us > LATE_SECONDS * 1_000_000:
        expected = f"a record that came within {LATE_SECONDS:,} s of its time"
        found = f"one dated {dated} that came {behind_us // 1_000_000:,} s after it"
        return [Finding("LATE", path, expected, found)]
    if ahead_us > FUTURE_SECONDS * 1_000_000:
        expected = f"a record dated at most {FUTURE_SECONDS} s after it came"
        found = f"one dated {dated} that came {ahead_us // 1_000_000:,} s before it"
        return [Finding("FUTURE", path, expected, found)]
    return []
