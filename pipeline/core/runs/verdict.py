"""The verdict on one record of the request topic by itself: a run, or rejected.

Whether the run is new, a duplicate or in conflict the index decides (`pipeline.storage`).

`judge_by_rule` is the definition. `clean_run` makes the same run in one pass where a request is
clean: complete, and with nothing that the rule would check, change or leave out. For all else it
gives None, and the rule decides. The procedure, with the same numbers in `clean_run`:

1. Parse and check types and lengths at once. A field that is unknown or comes twice is dropped
   here, and missed when the colons are counted in 3.
2. Write each part once; body and artifact are put together from the same bytes.
3. Check what the parser did not: identity, numbers, levels, control characters, secrets.
4. Decide by the safety policy.
5. Lay out what is shown: everything for a run that is OK; otherwise what could be cut is withheld.
"""

from typing import Annotated, Any, Literal, NotRequired, TypedDict

import msgspec
import orjson

from pipeline.core.dead_letters.carried_record import ReadContent
from pipeline.core.envelope import Parsed, Rejected, judged_apart, open_envelope
from pipeline.core.hashing import sha256_of_bytes, sha256_of_text
from pipeline.core.json.canonical import FAST_OPTIONS, has_small_number
from pipeline.core.json.strict import is_deep, may_lack_members
from pipeline.core.layout import artifact_path
from pipeline.core.runs.artifact import BuiltRun, build_run, index_fields_of
from pipeline.core.runs.artifact_parts import (
    INLINE_GCODE_LIMIT_BYTES,
    VERSION_STAMPS,
    is_shown_whole,
)
from pipeline.core.runs.attachments import Blob
from pipeline.core.runs.safety import Judgement, judge_safety
from pipeline.topics import REQUEST_VALUE_LIMIT_BYTES
from schemas.fields import (
    LABEL_LIMIT_CHARACTERS,
    PROSE_LIMIT_CHARACTERS,
    RunStatus,
    is_run_id,
)
from schemas.run_artifact import RUN_ARTIFACT_VERSION
from schemas.run_request import RUN_REQUEST_VERSION
from schemas.timestamps import normalise_timestamp

__all__ = ["JudgedRun", "Rejected", "judge_run_record"]


class JudgedRun(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A record that makes a run.

    Attributes:
        run_id: The run.
        request_sha256: Of the canonical body: it decides duplicate or conflict.
        artifact_sha256: Of the artifact's bytes.
        path: Of the artifact, relative to the store.
        built: The artifact and what is stored with it.
    """

    run_id: str
    request_sha256: str
    artifact_sha256: str
    path: str
    built: BuiltRun

    @property
    def is_incomplete(self) -> bool:
        """Whether the request had violations."""
        return self.built.is_incomplete


def judge_run_record(
    key: ReadContent | None, value: ReadContent | None, parsed: Parsed | None = None
) -> JudgedRun | Rejected:
    """Return what a record with this `key` and `value` is; the first rule that fits.

    An exception that is not the record's fault or the machine's becomes INTERNAL_ERROR: one
    record that our program cannot handle must not hold up the others.

    Args:
        key: The record's key.
        value: The record's value.
        parsed: What `parse_object` returns for the value, where the caller has it already.

    Raises:
        OSError: The machine is at fault, not the record.
        MemoryError: The same.
    """
    return judged_apart(lambda: clean_run(key, value) or judge_by_rule(key, value, parsed))


def judge_by_rule(
    key: ReadContent | None, value: ReadContent | None, parsed: Parsed | None = None
) -> JudgedRun:
    """Return the run of a record, by the definition itself.

    Raises:
        RejectionError: It can never succeed.
    """
    request = open_envelope(key, value, version=RUN_REQUEST_VERSION, parsed=parsed)
    built = build_run(request.document, request.body, request.created_at_utc)
    return judged_run(request.run_id, request.created_at_utc, built)


def judged_run(run_id: str, created_at_utc: str, built: BuiltRun) -> JudgedRun:
    """Return the verdict on a request that makes a run; its time is normalised."""
    return JudgedRun(
        run_id,
        built.index_fields.request_sha256,
        sha256_of_bytes(built.content),
        artifact_path(created_at_utc, run_id),
        built,
    )


Label = Annotated[str, msgspec.Meta(min_length=1, max_length=LABEL_LIMIT_CHARACTERS)]


class CleanOutputs(TypedDict, total=False):
    """The outputs that a clean request and its artifact may have."""

    gcode_text: str
    toolpaths: dict[str, Any] | list[Any]
    opplan_json: dict[str, Any] | list[Any]
    preview_svg: str


class CleanContext(TypedDict):
    """The fields that a clean request and its artifact may share, none of them null."""

    run_id: str
    created_at_utc: str
    mode: Label
    tool_id: Label
    workflow_session_id: NotRequired[Label]
    material_id: NotRequired[Label]
    machine_id: NotRequired[Label]
    workflow_mode: NotRequired[Label]
    toolchain_id: NotRequired[Label]
    post_processor_id: NotRequired[Label]
    geometry_ref: NotRequired[Label]
    geometry_hash: NotRequired[Label]
    parent_run_id: NotRequired[Label]
    parent_plan_run_id: NotRequired[Label]
    request_id: NotRequired[Label]
    drift_detected: NotRequired[bool]
    gate_policy_id: NotRequired[Label]
    gate_decision: NotRequired[Label]
    engine_version: NotRequired[Label]
    toolchain_version: NotRequired[Label]
    post_processor_version: NotRequired[Label]
    config_fingerprint: NotRequired[Label]
    notes: NotRequired[Annotated[str, msgspec.Meta(max_length=PROSE_LIMIT_CHARACTERS)]]


class _CleanRequest(CleanContext):
    """The fields of `RunRequest` that a clean request may have besides."""

    feasibility: Annotated[dict[str, Any], msgspec.Meta(min_length=1)]
    request: dict[str, Any]
    schema_version: NotRequired[Literal["rmos.run_request/1"]]
    event_type: NotRequired[Label]
    status: NotRequired[RunStatus]
    outputs: NotRequired[CleanOutputs]
    meta: NotRequired[dict[str, Any]]


_decode = msgspec.json.Decoder(_CleanRequest).decode
_LARGE = ("feasibility", "request", "meta")
_TEXTS = frozenset({"gcode_text", "preview_svg"})
_HASHED = (("toolpaths", "toolpaths_sha256"), ("opplan_json", "opplan_sha256"))


def clean_run(key: ReadContent | None, value: ReadContent | None) -> JudgedRun | None:
    """Return the run of a clean request, as the rule makes it; None where the rule must decide."""
    if not isinstance(value, bytes) or len(value) > REQUEST_VALUE_LIMIT_BYTES:
        return None
    try:
        return _clean_run(key, value)
    except (ValueError, TypeError, RecursionError):
        # Not of the types, no time that exists, an integer above 64 bits, or very deep.
        return None


def _clean_run(key: ReadContent | None, value: bytes) -> JudgedRun | None:
    request: Any = _decode(value)  # 1.
    outputs = request.get("outputs", {})
    parts = {name: written(request[name]) for name in _LARGE if name in request}  # 2.
    parts |= {name: written(outputs[name]) for name in outputs if name not in _TEXTS}
    document = request | {name: orjson.Fragment(parts[name]) for name in _LARGE if name in parts}
    if outputs:
        document["outputs"] = {
            name: item if name in _TEXTS else orjson.Fragment(parts[name])
            for name, item in outputs.items()
        }
    body = written(document)
    run_id = request["run_id"]
    all_parts = b",".join(parts.values())
    if (  # 3.
        key != run_id.encode()
        or not is_run_id(run_id)
        or may_lack_members(value, body)
        # A number stands in a part; a text beside them, such as a long program, needs no look.
        or has_small_number(all_parts)
        or is_deep(request, all_parts)
        or not "".join([each for each in request.values() if type(each) is str]).isprintable()
        or not is_shown_whole(request["request"], parts["request"])
        or len(outputs.get("gcode_text", "").encode()) > INLINE_GCODE_LIMIT_BYTES
    ):
        return None
    judgement = judge_safety(  # 4.
        decision=None,
        feasibility=request["feasibility"],
        producer_status=request.get("status"),
        producer_failed=False,
    )
    document["created_at_utc"] = created_at_utc = normalise_timestamp(request["created_at_utc"])
    built = _clean_artifact(document, body, judgement, hashes_of_parts(outputs, parts))
    return judged_run(run_id, created_at_utc, built)


def written(part: Any) -> bytes:  # noqa: ANN401
    """Return the canonical JSON of a part that has no small number.

    Raises:
        TypeError: An integer does not fit in 64 bits.
    """
    return orjson.dumps(part, option=FAST_OPTIONS)


def hashes_of_parts(outputs: dict[str, Any], parts: dict[str, bytes]) -> dict[str, str]:
    """Return the hash of every payload that is there, as `payload_hashes` does."""
    hashes = {"feasibility_sha256": sha256_of_bytes(parts["feasibility"])}
    for name, hash_name in _HASHED:
        if name in parts:
            hashes[hash_name] = sha256_of_bytes(parts[name])
    if "gcode_text" in outputs:
        hashes["gcode_sha256"] = sha256_of_text(outputs["gcode_text"])
    return hashes


def _clean_artifact(
    document: dict[str, Any], body: bytes, judgement: Judgement, hashes: dict[str, str]
) -> BuiltRun:
    """Turn the request in `document` into its artifact."""
    provenance: dict[str, Any] = {"request_sha256": sha256_of_bytes(body)}
    missing = [name for name in VERSION_STAMPS if name not in document]
    if missing:
        provenance["version_stamps_missing"] = missing
    outputs = document.get("outputs", {})
    generated: tuple[str, ...] = ()
    if not judgement.is_ok:  # 5.
        feasibility_sha256 = hashes.pop("feasibility_sha256")
        withheld = [
            *(f"outputs.{name}" for name in outputs),
            *(f"hashes.{name}" for name in hashes),
        ]
        if withheld:
            provenance["withheld"] = sorted(withheld)
        generated = tuple(sorted({*hashes.values()}))
        outputs, hashes = {}, {"feasibility_sha256": feasibility_sha256}
    document |= {
        "schema_version": RUN_ARTIFACT_VERSION,
        "status": judgement.status,
        "event_type": document.get("event_type", "unknown"),
        "request_summary": document.pop("request"),
        "decision": judgement.decision,
        "hashes": hashes,
        "outputs": outputs,
        "attachments": [],
        "advisory_inputs": [],
        "meta": document.get("meta", {}),
        "provenance": provenance,
    }
    return BuiltRun(
        index_fields_of(document),
        written(document),
        (),
        None if judgement.is_ok else Blob(provenance["request_sha256"], body),
        is_incomplete=False,
        withheld_payloads=generated,
    )
