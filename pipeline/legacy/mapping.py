"""The mapping of a row of an older store to its message, with nothing dropped.

Every value of the row is taken into the field that it fits; a value that has no field, or does not
fit one, stays under `meta.v1` as it was. Old hashes are such values: hashes are
computed anew from what is there. A row whose identity, times or status cannot be read is refused
and reported, never repaired: a time is never guessed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.core.envelope import Rejected
from pipeline.core.hashing import sha256_of_json
from pipeline.core.json.canonical import canonical_json
from pipeline.core.runs.recorded_verdict import recorded_decision
from pipeline.core.runs.verdict import JudgedRun
from pipeline.legacy.attachments import (
    FoundBlob,
    oversized_outputs,
    take_attachments,
    with_contents,
)
from pipeline.legacy.fields import (
    CONTEXT_FIELDS,
    OUTPUT_FIELDS,
    UnmappedFields,
    fits_label,
    is_object,
    same_json,
)
from pipeline.legacy.record import judge_legacy_record
from pipeline.legacy.v1.row import objects_in
from schemas.fields import RUN_ID_RULE, is_run_id
from schemas.legacy_run import LEGACY_RUN_VERSION, LegacyFormat
from schemas.timestamps import normalise_timestamp

UNREAD_LINK = "ADVISORY_UNREADABLE"

ROW_CODES = {
    UNREAD_LINK: "an advisory file is not strict JSON; its run is carried over without it",
    "BAD_DATE": "a time is missing or cannot be read; it is never guessed",
    "BAD_RUN_ID": "the run_id is not of the pattern, or not the one that the row is filed under",
    "BAD_STATUS": "the status is none of OK, BLOCKED, ERROR",
    "NO_RUN": "the run of an advisory is missing",
    "NOT_CARRIED": "the row does not fit into a message",
    "TWICE": "two files have this run_id, and it cannot be decided which one is the run",
    "UNREADABLE": "the row is not strict JSON, or not an object",
}
"""Why a row, or one file beside it, cannot be carried over."""

_STATUSES = frozenset({"OK", "BLOCKED", "ERROR"})
_OURS = ("format", "row_sha256", "values")


class LegacyRowError(Exception):
    """This row cannot be carried over; the others can.

    Attributes:
        code: One of `ROW_CODES`.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class MappedRow:
    """A row as it is published.

    Attributes:
        body: The record's value: canonical JSON of a `LegacyRun`.
        judged: What that record makes.
        oversized: Attachments whose content has no room in the message: the store takes them
            directly.
        contents: Of them those that stood in the row itself.
    """

    body: bytes
    judged: JudgedRun
    oversized: tuple[str, ...]
    contents: Mapping[str, bytes] = field(default_factory=dict)


def advisories_of(
    row: Mapping[str, Any], links: Sequence[dict[str, Any]] = ()
) -> list[dict[str, Any]]:
    """Return the advisories of a run: those in its row, then those in files beside it.

    Of two with one advisory_id the first counts, as the older store had it.
    """
    advisories = objects_in(row.get("advisory_inputs"))
    known = {canonical_json(each.get("advisory_id")) for each in advisories}
    for link in sorted(links, key=_age):
        name = canonical_json(link.get("advisory_id"))
        if name not in known:
            known.add(name)
            advisories.append(link)
    return advisories


def map_row(
    key: str,
    row: Mapping[str, Any],
    *,
    origin: LegacyFormat,
    blobs: Mapping[str, FoundBlob] | None = None,
    links: Sequence[dict[str, Any]] = (),
) -> MappedRow:
    """Return the message that carries `row`, and what it makes.

    Args:
        key: The run_id that the row is filed under.
        row: The row, parsed strictly.
        origin: Which store it is from.
        blobs: What was found of the contents that it names, by SHA-256.
        links: Advisories that lie beside the run in files of their own.

    Raises:
        LegacyRowError: The row cannot be carried over.
    """
    unmapped = UnmappedFields(row)
    found = blobs or {}
    run_id = _take_run_id(unmapped, key)
    created_at_utc = _take_time(unmapped)
    advisories = _take_advisories(unmapped, row, links)
    try:
        refs = take_attachments(unmapped, advisories, found, created_at_utc)
    except ValueError as error:
        raise LegacyRowError("BAD_DATE", f"created_at_utc of an attachment: {error}") from error
    document = {
        "schema_version": LEGACY_RUN_VERSION,
        "run_id": run_id,
        "created_at_utc": created_at_utc,
        "status": _take_status(unmapped),
        **_take_names(unmapped),
        **_take_payloads(unmapped),
        **unmapped.take_all(CONTEXT_FIELDS),
        **_take_lineage(unmapped),
        **({"advisory_inputs": advisories} if advisories else {}),
        **({"attachments": refs} if refs else {}),
        "meta": _meta(unmapped, origin, sha256_of_json(row)),
    }
    document, contents = oversized_outputs(document)
    refs = document.get("attachments", [])
    attachments, oversized = with_contents(refs, found, len(canonical_json(document)))
    if refs:
        document["attachments"] = attachments
    return _judged(run_id, canonical_json(document), oversized, contents)


def _judged(
    run_id: str, body: bytes, oversized: tuple[str, ...], contents: Mapping[str, bytes]
) -> MappedRow:
    judged = judge_legacy_record(run_id.encode(), body)
    if isinstance(judged, Rejected):
        raise LegacyRowError("NOT_CARRIED", f"{judged.code}: {judged.message}")
    names = dict.fromkeys((*oversized, *contents))
    return MappedRow(body, judged, tuple(names), contents)


def _take_run_id(unmapped: UnmappedFields, key: str) -> str:
    stated = unmapped.get("run_id")
    if stated is not None and stated != key:
        raise LegacyRowError(
            "BAD_RUN_ID", f"Expected the run_id that the row is filed under, found {stated!r:.80}."
        )
    if not is_run_id(key):
        raise LegacyRowError("BAD_RUN_ID", f"Expected a run_id of {RUN_ID_RULE}.")
    unmapped.keep_rest("run_id", None)
    return key


def _take_time(unmapped: UnmappedFields) -> str:
    found = unmapped.get("created_at_utc")
    if not isinstance(found, str):
        raise LegacyRowError(
            "BAD_DATE", f"Expected created_at_utc, a time with an offset, found {found!r:.80}."
        )
    try:
        created_at_utc = normalise_timestamp(found)
    except ValueError as error:
        raise LegacyRowError("BAD_DATE", f"created_at_utc: {error}") from error
    # `+00:00` and `Z` are the same; any other offset, and digits that were cut, are kept.
    same = f"{found.removesuffix('+00:00').removesuffix('Z')}Z" == created_at_utc
    unmapped.keep_rest("created_at_utc", None if same else found)
    return created_at_utc


def _take_status(unmapped: UnmappedFields) -> str:
    found = unmapped.get("status")
    # A row of an older store that names no status is OK there.
    status = found.strip().upper() if isinstance(found, str) else "OK"
    if status not in _STATUSES or not isinstance(found, str | None):
        raise LegacyRowError(
            "BAD_STATUS", f"Expected the status OK, BLOCKED or ERROR, found {found!r:.80}."
        )
    unmapped.keep_rest("status", None if found == status else found)
    return status


def _take_names(unmapped: UnmappedFields) -> dict[str, str]:
    workflow_mode = unmapped.get("workflow_mode")
    mode = unmapped.take("mode", fits_label)
    if mode is None and workflow_mode is not None and fits_label(workflow_mode):
        mode = workflow_mode
    return {
        "mode": mode or "unknown",
        "tool_id": unmapped.take("tool_id", fits_label) or "unknown",
        "event_type": unmapped.take("event_type", fits_label) or "unknown",
    }


def _take_payloads(unmapped: UnmappedFields) -> dict[str, Any]:
    feasibility = unmapped.take("feasibility", is_object)
    request = unmapped.take("request_summary", is_object)
    outputs = _take_outputs(unmapped)
    payloads = {"feasibility": feasibility, "request": request, "outputs": outputs or None}
    return {
        "decision": _take_decision(unmapped, feasibility or {}),
        **{name: value for name, value in payloads.items() if value is not None},
    }


def _take_decision(unmapped: UnmappedFields, feasibility: dict[str, Any]) -> dict[str, Any]:
    found = unmapped.get("decision")
    decision = recorded_decision(found, feasibility)
    if isinstance(found, dict):
        given = {name: value for name, value in found.items() if value not in (None, [], {})}
        mapped = {name: decision.get(name) for name in given}
        unmapped.keep_rest("decision", None if same_json(given, mapped) else found)
    return decision


def _take_outputs(unmapped: UnmappedFields) -> dict[str, Any]:
    """Take what was generated: out of `outputs`, and from the top where v1 had it."""
    outputs = {}
    nested = unmapped.get("outputs")
    if isinstance(nested, dict):
        inner = UnmappedFields(nested)
        outputs = inner.take_all(OUTPUT_FIELDS)
        unmapped.keep_rest("outputs", inner.rest() or None)
    missing = {name: fits for name, fits in OUTPUT_FIELDS.items() if name not in outputs}
    return outputs | unmapped.take_all(missing)


def _take_lineage(unmapped: UnmappedFields) -> dict[str, Any]:
    """Take the plan that a run carries out, where a newer original store had it."""
    found = unmapped.get("lineage")
    if not isinstance(found, dict):
        return {}
    inner = UnmappedFields(found)
    plan = inner.take("parent_plan_run_id", fits_label)
    unmapped.keep_rest("lineage", inner.rest() or None)
    return {} if plan is None else {"parent_plan_run_id": plan}


def _take_advisories(
    unmapped: UnmappedFields, row: Mapping[str, Any], links: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    own = unmapped.get("advisory_inputs")
    if isinstance(own, list) and all(map(is_object, own)):
        unmapped.keep_rest("advisory_inputs", None)
    return advisories_of(row, links)


def _age(link: Mapping[str, Any]) -> tuple[str, str]:
    return str(link.get("created_at_utc")), str(link.get("advisory_id"))


def _meta(unmapped: UnmappedFields, origin: LegacyFormat, row_sha256: str) -> dict[str, Any]:
    found = unmapped.get("meta")
    own: dict[str, Any] = {}
    # A meta that has a `v1` of its own stays whole, in ours.
    if isinstance(found, dict) and "v1" not in found:
        own = found
        unmapped.keep_rest("meta", None)
    rest = unmapped.rest()
    clashing = {name: rest.pop(name) for name in _OURS if name in rest}
    if clashing:
        rest["values"] = clashing
    return {**own, "v1": {**rest, "format": origin, "row_sha256": row_sha256}}
