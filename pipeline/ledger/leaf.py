"""The leaf of one consumed record: its outcome, as the ledger keeps it for ever.

A function of the record and of those before it in its partition. It has nothing that depends
on the moment: not when it was written or by whom, not how the records were batched, not the
text of a message, not whether our program renders other bytes today, and not whether the run's
file is intact. The leaf of a record found ARTIFACT_CORRUPT is as if the file were right: a
run, duplicate or conflict, so that a replay into an empty store makes the same leaf. An advisory
has the same leaf whether its run is there or not.
"""

import re
from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec
from msgspec.structs import astuple

from pipeline.core.advisories.outcome import AdvisoryOutcome
from pipeline.core.json.canonical import canonical_json_of_integers
from pipeline.core.json.strict import InvalidJsonError, parse_object
from pipeline.core.layout import ArtifactPath, parse_path
from pipeline.core.record import RecordSource
from pipeline.core.runs.outcome import Outcome
from pipeline.ledger.tlog import EvidenceError
from pipeline.ledger.tlog.tiles import ENTRY_LIMIT_BYTES
from schemas.fields import LARGEST_EXACT_INTEGER, is_advisory_id, is_run_id

LEAF_VERSION: Final = 1

LeafKind = Literal["run", "advisory", "duplicate", "conflict", "rejected"]

_KINDS: dict[str, LeafKind] = {
    "persisted": "run",
    "linked": "advisory",
    "waiting": "advisory",
    "duplicate": "duplicate",
    "conflict": "conflict",
    "rejected": "rejected",
}
_ALWAYS = frozenset({"v", "kind", "body_sha256", "source"})
_OF_RUN = _ALWAYS | {"run_id", "path", "sha256", "size_bytes"}
_OF_ADVISORY = _ALWAYS | {"run_id", "advisory_id", "link_sha256"}
_FIELDS: dict[str, tuple[frozenset[str], ...]] = {
    "run": (_OF_RUN,),
    "advisory": (_OF_ADVISORY,),
    "duplicate": (_OF_RUN, _OF_ADVISORY),
    "conflict": (_OF_RUN | {"code"}, _OF_ADVISORY | {"code"}),
    "rejected": (_ALWAYS | {"code"}, _ALWAYS | {"code", "run_id"}),
}
"""The fields of each kind, of runs and of advisories; a rejected record has its run_id where it
could be read."""

_SOURCE_FIELDS = frozenset({"topic", "partition", "offset", "timestamp_ms"})
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CODE = re.compile(r"[A-Z][A-Z_]{0,63}")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_LARGEST_INT32 = 2**31 - 1
_LARGEST_INT64 = 2**63 - 1


class LedgerLeaf(msgspec.Struct, frozen=True, gc=False):
    """What became of one record. Values that a kind has not are None, and left out.

    Attributes:
        kind: What became of it.
        topic: Where the broker keeps it, with the next two.
        partition: As above.
        offset: As above.
        timestamp_ms: Its broker time, whatever the broker gave.
        body_sha256: Of its untouched value; of no bytes for a tombstone.
        code: Why there is a dead letter.
        run_id: Where it could be read.
        path: Of the run's artifact, as the next two, from the store's row of the run.
        sha256: Of the artifact.
        size_bytes: Of the artifact.
        advisory_id: Of an advisory; with `link_sha256`.
        link_sha256: Of the advisory's link, from the store's row, whether the link is there or
            still waits for its run.
    """

    kind: LeafKind
    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    body_sha256: str
    code: str | None = None
    run_id: str | None = None
    path: str | None = None
    sha256: str | None = None
    size_bytes: int | None = None
    advisory_id: str | None = None
    link_sha256: str | None = None

    def encode(self) -> bytes:
        """Return the canonical JSON: the bytes of the leaf.

        Raises:
            EvidenceError: They are more than a bundle can hold.
        """
        kind, topic, partition, offset, timestamp_ms, body_sha256, *values = astuple(self)
        leaf: dict[str, Any] = {
            "v": LEAF_VERSION,
            "kind": kind,
            "body_sha256": body_sha256,
            "source": {
                "topic": topic,
                "partition": partition,
                "offset": offset,
                "timestamp_ms": timestamp_ms,
            },
        }
        named = zip(_VALUES, values, strict=True)
        leaf |= {name: value for name, value in named if value is not None}
        content = canonical_json_of_integers(leaf)
        if len(content) > ENTRY_LIMIT_BYTES:
            raise EvidenceError(
                f"expected a leaf of at most {ENTRY_LIMIT_BYTES} bytes, found {len(content)}"
            )
        return content


_VALUES = LedgerLeaf.__struct_fields__[6:]


def leaf_of_outcome(
    outcome: Outcome | AdvisoryOutcome,
    source: RecordSource,
    *,
    body_sha256: str,
    timestamp_ms: int,
) -> LedgerLeaf:
    """Return the leaf of a record of a request topic.

    That of an advisory is the same whether it is linked or waits for its run: runs come by another
    topic.

    Args:
        outcome: What became of the record, resolved as if the file of its run or its link were
            intact.
        source: Where the broker keeps the record; its epoch is that of the log.
        body_sha256: Of the untouched value; of no bytes for a tombstone.
        timestamp_ms: Its broker time.

    Raises:
        ValueError: The outcome depends on the state of a file.
    """
    if outcome.code == "ARTIFACT_CORRUPT":
        raise ValueError(
            "expected an outcome resolved as if the file were intact, found ARTIFACT_CORRUPT"
        )
    return LedgerLeaf(
        _KINDS[outcome.kind],
        *source.id,
        timestamp_ms,
        body_sha256,
        outcome.code,
        outcome.run_id,
        *_row_fields(outcome),
    )


def _row_fields(outcome: Outcome | AdvisoryOutcome) -> tuple[Any, ...]:
    """Return what a leaf has from the row of a run or of an advisory, in its order."""
    if isinstance(outcome, AdvisoryOutcome):
        row = outcome.advisory
        return (None, None, None, row.advisory_id, row.link_sha256) if row else ()
    run = outcome.run
    return () if run is None else (run.artifact_path, run.artifact_sha256, run.size_bytes)


# The canonical JSON of nearly every leaf: that of a run, or of its duplicate. Each number has fewer
# digits than the largest that its field may have, so none needs to be compared with that.
_RUN_LEAF = re.compile(
    r'\{"body_sha256":"([0-9a-f]{64})","kind":"(run|duplicate)",'
    r'"path":"(runs/[0-9]{4}-[0-9]{2}-[0-9]{2}/([A-Za-z0-9][A-Za-z0-9._-]{0,99})\.json)",'
    r'"run_id":"\4","sha256":"([0-9a-f]{64})","size_bytes":([1-9][0-9]{0,14}),'
    r'"source":\{"offset":(0|[1-9][0-9]{0,17}),"partition":(0|[1-9][0-9]{0,8}),'
    r'"timestamp_ms":(-1|0|[1-9][0-9]{0,17}),"topic":"([A-Za-z0-9._-]{1,249})"\},"v":1\}'
)


def parse_leaf(content: bytes) -> LedgerLeaf:
    """Return the leaf that `content` holds.

    Raises:
        EvidenceError: `content` is not what `LedgerLeaf.encode` makes.
    """
    match = _RUN_LEAF.fullmatch(content.decode("latin-1"))
    if match is None:
        return parse_leaf_by_rule(content)
    body, kind, path, run_id, sha256, size_bytes, offset, partition, timestamp_ms, topic = (
        match.groups()
    )
    if not is_run_id(run_id):
        return parse_leaf_by_rule(content)
    return LedgerLeaf(
        "run" if kind == "run" else "duplicate",
        topic,
        int(partition),
        int(offset),
        int(timestamp_ms),
        body,
        None,
        run_id,
        path,
        sha256,
        int(size_bytes),
    )


def parse_leaf_by_rule(content: bytes) -> LedgerLeaf:
    """Return the leaf that `content` holds, by the definition itself.

    Raises:
        EvidenceError: As `parse_leaf`.
    """
    try:
        leaf, canonical = parse_object(content)
    except InvalidJsonError as error:
        raise EvidenceError(f"expected a leaf: {error}") from error
    if canonical != content:
        raise EvidenceError("expected a leaf in canonical JSON")
    kind, source = leaf.get("kind"), leaf.get("source")
    if not isinstance(kind, str) or kind not in _FIELDS or leaf.keys() not in _FIELDS[kind]:
        raise EvidenceError(
            f"expected the fields of a leaf, found kind {kind!r} with {sorted(leaf)}"
        )
    if not isinstance(source, dict) or source.keys() != _SOURCE_FIELDS:
        raise EvidenceError("expected the fields of a leaf's source")
    values = {**leaf, **source}
    _check_values(values)
    del values["v"], values["source"]
    return LedgerLeaf(**values)


def _check_values(leaf: dict[str, Any]) -> None:
    for name, value in leaf.items():
        # The kind and the source are checked already.
        if name in _CHECKS and not _CHECKS[name](value, leaf):
            raise EvidenceError(f"expected another value of {name} in a leaf, found {value!r}")


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_code_of(code: str, fields: dict[str, Any]) -> bool:
    if fields["kind"] == "conflict":
        return code == ("RUN_CONFLICT" if "path" in fields else "ADVISORY_CONFLICT")
    return code not in {"RUN_CONFLICT", "ADVISORY_CONFLICT", "ARTIFACT_CORRUPT"}


def _is_between(least: int, value: object, most: int) -> bool:
    return type(value) is int and least <= value <= most


def _is_path_of(path: str, run_id: str) -> bool:
    parsed = parse_path(path)
    return isinstance(parsed, ArtifactPath) and parsed.run_id == run_id


_CHECKS: dict[str, Callable[[Any, dict[str, Any]], bool]] = {
    "v": lambda value, _: _is_between(LEAF_VERSION, value, LEAF_VERSION),
    "body_sha256": lambda value, _: _matches(_SHA256, value),
    "sha256": lambda value, _: _matches(_SHA256, value),
    "link_sha256": lambda value, _: _matches(_SHA256, value),
    "code": lambda value, leaf: _matches(_CODE, value) and _is_code_of(value, leaf),
    "topic": lambda value, _: _matches(_TOPIC, value),
    "run_id": lambda value, _: isinstance(value, str) and is_run_id(value),
    "advisory_id": lambda value, _: isinstance(value, str) and is_advisory_id(value),
    "path": lambda value, leaf: isinstance(value, str) and _is_path_of(value, leaf["run_id"]),
    "size_bytes": lambda value, _: _is_between(1, value, LARGEST_EXACT_INTEGER),
    "partition": lambda value, _: _is_between(0, value, _LARGEST_INT32),
    "offset": lambda value, _: _is_between(0, value, _LARGEST_INT64),
    "timestamp_ms": lambda value, _: _is_between(-_LARGEST_INT64 - 1, value, _LARGEST_INT64),
}
"""Whether a value is one that its field may have, given all fields of the leaf."""
