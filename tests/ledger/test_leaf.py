"""The leaf of a record: its bytes for every kind, what it does not depend on, and back."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from pipeline.core.advisories.outcome import (
    AdvisoryOutcome,
    StoredAdvisory,
    resolve_advisory,
    resolve_rejected_advisory,
    stored_advisory,
)
from pipeline.core.advisories.verdict import JudgedAdvisory, judge_advisory_record
from pipeline.core.record import RecordId, RecordSource
from pipeline.core.runs.outcome import Outcome, StoredRun, resolve_rejected, resolve_run, stored_run
from pipeline.core.runs.verdict import JudgedRun, Rejected, judge_run_record
from pipeline.ledger.leaf import LedgerLeaf, leaf_of_outcome, parse_leaf, parse_leaf_by_rule
from pipeline.ledger.tlog import EvidenceError
from pipeline.ledger.tlog.tiles import ENTRY_LIMIT_BYTES
from tests.builders import advisory_request, record, red_request, run_request
from tests.laws import offenders

SOURCE = RecordSource(1, RecordId("rmos.runs.requests", 3, 41))
BODY_SHA256 = "ab" * 32
TIMESTAMP_MS = 1_766_066_602_123


def judged(**changes: Any) -> JudgedRun:
    verdict = judge_run_record(*record(run_request(**changes)))
    assert isinstance(verdict, JudgedRun)
    return verdict


def leaf_of(outcome: Outcome, source: RecordSource = SOURCE) -> LedgerLeaf:
    return leaf_of_outcome(outcome, source, body_sha256=BODY_SHA256, timestamp_ms=TIMESTAMP_MS)


def resolved(verdict: JudgedRun, run: StoredRun, source: RecordSource = SOURCE) -> LedgerLeaf:
    return leaf_of(resolve_run(verdict, run, source, intact=True), source)


RUN = stored_run(judged(run_id="run_a"), SOURCE)
ARTIFACT = (
    '"path":"runs/2025-12-18/run_a.json","run_id":"run_a",'
    f'"sha256":"{RUN.artifact_sha256}","size_bytes":{RUN.size_bytes}'
)
PLACE = '"offset":41,"partition":3,"timestamp_ms":1766066602123,"topic":"rmos.runs.requests"'
LATER = SOURCE._replace(id=SOURCE.id._replace(offset=42))


def test_the_leaf_of_a_new_run() -> None:
    assert resolved(judged(run_id="run_a"), RUN).encode().decode() == (
        f'{{"body_sha256":"{BODY_SHA256}","kind":"run",{ARTIFACT},"source":{{{PLACE}}},"v":1}}'
    )


def test_the_leaf_of_a_duplicate_names_the_stored_run() -> None:
    found = json.loads(resolved(judged(run_id="run_a"), RUN, LATER).encode())
    assert found == {
        "v": 1,
        "kind": "duplicate",
        "run_id": "run_a",
        "path": "runs/2025-12-18/run_a.json",
        "sha256": RUN.artifact_sha256,
        "size_bytes": RUN.size_bytes,
        "body_sha256": BODY_SHA256,
        "source": {
            "topic": "rmos.runs.requests",
            "partition": 3,
            "offset": 42,
            "timestamp_ms": TIMESTAMP_MS,
        },
    }


def test_the_leaf_of_a_conflict_names_the_stored_run_and_the_code() -> None:
    found = json.loads(resolved(judged(run_id="run_a", notes="changed"), RUN, LATER).encode())
    assert (found["kind"], found["code"]) == ("conflict", "RUN_CONFLICT")
    assert (found["path"], found["sha256"]) == (RUN.artifact_path, RUN.artifact_sha256)


@pytest.mark.parametrize("run_id", [None, "run_a"])
def test_the_leaf_of_a_rejected_record_has_a_code_and_no_artifact(run_id: str | None) -> None:
    rejected = Rejected("KEY_MISMATCH", "a message that may be put better one day", run_id)
    found = leaf_of(resolve_rejected(rejected)).encode().decode()
    expected = '"run_id":"run_a",' if run_id else ""
    assert found == (
        f'{{"body_sha256":"{BODY_SHA256}","code":"KEY_MISMATCH","kind":"rejected",'
        f'{expected}"source":{{{PLACE}}},"v":1}}'
    )


def test_a_blocked_run_is_a_run() -> None:
    verdict = judge_run_record(*record(red_request()))
    assert isinstance(verdict, JudgedRun)
    assert resolved(verdict, stored_run(verdict, SOURCE)).kind == "run"


def test_a_run_delivered_again_has_the_same_leaf() -> None:
    assert resolved(judged(run_id="run_a"), RUN) == resolved(judged(run_id="run_a"), RUN)


def test_the_leaf_is_that_of_the_stored_run_whatever_we_render_today() -> None:
    once = structs.replace(RUN, artifact_sha256="cd" * 32, size_bytes=7)
    outcome = resolve_run(judged(run_id="run_a"), once, SOURCE, intact=True)
    assert outcome.drifted
    leaf = leaf_of(outcome)
    assert (leaf.sha256, leaf.size_bytes) == ("cd" * 32, 7)
    assert leaf_of(structs.replace(outcome, drifted=False, may_cut=True, message="x")) == leaf


@pytest.mark.parametrize("source", [SOURCE, LATER])
def test_the_leaf_of_a_damaged_run_must_be_made_as_if_it_were_intact(source: RecordSource) -> None:
    verdict = judged(run_id="run_a")
    damaged = resolve_run(verdict, RUN, source, intact=False)
    with pytest.raises(ValueError, match="as if the file were intact"):
        leaf_of(damaged, source)
    assert resolved(verdict, RUN, source).kind == ("run" if source == SOURCE else "duplicate")


ADVISORY_SOURCE = RecordSource(1, RecordId("rmos.advisories.requests", 3, 41))
LATER_ADVISORY = ADVISORY_SOURCE._replace(id=ADVISORY_SOURCE.id._replace(offset=42))
LINK_PATH = "runs/2025-12-18/run_a_advisory_adv_1.json"


def advised(**changes: Any) -> JudgedAdvisory:
    request = advisory_request(run_id="run_a", advisory_id="adv_1", **changes)
    verdict = judge_advisory_record(*record(request))
    assert isinstance(verdict, JudgedAdvisory)
    return verdict


def advisory_leaf_of(
    outcome: AdvisoryOutcome, source: RecordSource = ADVISORY_SOURCE
) -> LedgerLeaf:
    return leaf_of_outcome(outcome, source, body_sha256=BODY_SHA256, timestamp_ms=TIMESTAMP_MS)


def resolved_advisory(
    verdict: JudgedAdvisory, advisory: StoredAdvisory, source: RecordSource = ADVISORY_SOURCE
) -> LedgerLeaf:
    return advisory_leaf_of(resolve_advisory(verdict, advisory, source, intact=True), source)


WAITING = stored_advisory(advised(), ADVISORY_SOURCE, None)
LINKED = stored_advisory(advised(), ADVISORY_SOURCE, LINK_PATH)


def test_the_leaf_of_an_advisory_is_the_same_linked_or_waiting() -> None:
    leaf = resolved_advisory(advised(), LINKED)
    assert leaf == resolved_advisory(advised(), WAITING)
    assert json.loads(leaf.encode()) == {
        "v": 1,
        "kind": "advisory",
        "run_id": "run_a",
        "advisory_id": "adv_1",
        "link_sha256": LINKED.link_sha256,
        "body_sha256": BODY_SHA256,
        "source": {
            "topic": "rmos.advisories.requests",
            "partition": 3,
            "offset": 41,
            "timestamp_ms": TIMESTAMP_MS,
        },
    }


def test_another_advisory_under_the_same_id_names_the_stored_link_and_the_code() -> None:
    leaf = resolved_advisory(advised(title="t", content_text="other"), LINKED, LATER_ADVISORY)
    assert (leaf.kind, leaf.code) == ("conflict", "ADVISORY_CONFLICT")
    assert leaf.link_sha256 == LINKED.link_sha256


def test_the_leaf_of_a_damaged_link_must_be_made_as_if_it_were_intact() -> None:
    damaged = resolve_advisory(advised(), LINKED, ADVISORY_SOURCE, intact=False)
    with pytest.raises(ValueError, match="as if the file were intact"):
        advisory_leaf_of(damaged)


def test_another_epoch_changes_nothing_but_whose_run_it_is() -> None:
    """The epoch is in the origin of the log, so no leaf repeats it."""
    assert "epoch" not in resolved(judged(run_id="run_a"), RUN).encode().decode()
    assert resolved(judged(run_id="run_a"), RUN, SOURCE._replace(epoch=2)).kind == "duplicate"


LEAVES = [
    resolved(judged(run_id="run_a"), RUN),
    resolved(judged(run_id="run_a"), RUN, LATER),
    resolved(judged(run_id="run_a", notes="changed"), RUN, LATER),
    leaf_of(resolve_rejected(Rejected("INVALID_JSON", "text"))),
    leaf_of(resolve_rejected(Rejected("KEY_MISMATCH", "text", "run_a"))),
    resolved_advisory(advised(), LINKED),
    resolved_advisory(advised(), LINKED, LATER_ADVISORY),
    resolved_advisory(advised(content_text="other"), LINKED, LATER_ADVISORY),
    advisory_leaf_of(resolve_rejected_advisory(Rejected("INVALID_ADVISORY", "text", "run_a"))),
]


def test_every_leaf_is_read_back() -> None:
    def holds(leaf: LedgerLeaf) -> None:
        assert parse_leaf(leaf.encode()) == leaf
        assert len(leaf.encode()) < 600

    assert offenders(holds, LEAVES) == []


@given(st.integers(0, 2**31 - 1), st.integers(0, 2**63 - 1), st.integers(-(2**63), 2**63 - 1))
def test_every_place_and_time_of_a_broker_is_read_back(
    partition: int, offset: int, timestamp_ms: int
) -> None:
    leaf = structs.replace(LEAVES[0], partition=partition, offset=offset, timestamp_ms=timestamp_ms)
    assert parse_leaf(leaf.encode()) == leaf


def test_the_largest_leaf_fits_many_times() -> None:
    largest = LedgerLeaf(
        "conflict",
        topic="t" * 249,
        partition=2**31 - 1,
        offset=2**63 - 1,
        timestamp_ms=-(2**63),
        body_sha256="a" * 64,
        code="RUN_CONFLICT",
        run_id="r" * 100,
        path=f"runs/2025-12-18/{'r' * 100}.json",
        sha256="a" * 64,
        size_bytes=2**53 - 1,
    )
    assert parse_leaf(largest.encode()) == largest
    assert len(largest.encode()) < ENTRY_LIMIT_BYTES // 50
    with pytest.raises(EvidenceError, match="at most 65535 bytes"):
        structs.replace(largest, code="x" * 65_535).encode()


def changed(leaf: LedgerLeaf, change: dict[str, Any]) -> bytes:
    fields = json.loads(leaf.encode())
    for name, value in change.items():
        holder = fields["source"] if name in fields["source"] else fields
        if value is ...:
            del holder[name]
        else:
            holder[name] = value
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def test_a_leaf_of_a_run_with_a_field_changed_is_refused() -> None:
    def holds(change: dict[str, Any]) -> None:
        assert parse_leaf(changed(LEAVES[0], {})) == LEAVES[0]
        with pytest.raises(EvidenceError, match=r"in a leaf|fields of a leaf"):
            parse_leaf(changed(LEAVES[0], change))

    assert (
        offenders(
            holds,
            [
                {"v": 2},
                {"v": True},
                {"v": "1"},
                {"v": ...},
                {"kind": "persisted"},
                {"kind": "rejected"},
                {"kind": "conflict"},
                {"kind": None},
                {"kind": ["run"]},
                {"code": "RUN_CONFLICT"},
                {"code": None},
                {"run_id": ...},
                {"run_id": "diff"},
                {"run_id": "run_b"},
                {"run_id": 1},
                {"path": "runs/2025-12-18/run_b.json"},
                {"path": "runs/2025-12-18/run_a_advisory_x.json"},
                {"path": "../run_a.json"},
                {"path": None},
                {"sha256": "AB" * 32},
                {"sha256": "ab" * 31},
                {"sha256": ...},
                {"size_bytes": 0},
                {"size_bytes": -1},
                {"size_bytes": True},
                {"size_bytes": "7"},
                {"size_bytes": 2**53},
                {"size_bytes": ...},
                {"body_sha256": "ab" * 33},
                {"body_sha256": ...},
                {"body_sha256": None},
                {"source": None},
                {"source": []},
                {"source": {}},
                {"topic": ...},
                {"topic": ""},
                {"topic": "a/b"},
                {"topic": "t" * 250},
                {"partition": -1},
                {"partition": 2**31},
                {"partition": True},
                {"offset": -1},
                {"offset": 2**63},
                {"offset": 1.5},
                {"offset": "1"},
                {"timestamp_ms": None},
                {"timestamp_ms": 2**63},
                {"timestamp_ms": 1.0},
                {"more": 1},
            ],
        )
        == []
    )


def _found(parse: Callable[[bytes], LedgerLeaf], content: bytes) -> LedgerLeaf | str:
    try:
        return parse(content)
    except EvidenceError as error:
        return str(error)


NUMBERS = [near + n for near in (0, 10**15, 10**18, 2**31, 2**53, 2**63) for n in (-1, 0, 1)]
RUN_IDS = ["diff", "attachments", "a_advisory", "a_advisory_b", "r.-_", "r" * 100, "r" * 101]
CHANGES: list[dict[str, Any]] = [
    *({}, {"kind": "duplicate"}, {"run_id": "run_b"}, {"topic": "t" * 250}),
    *(
        {field: number}
        for field in ("size_bytes", "offset", "partition", "timestamp_ms")
        for number in NUMBERS
    ),
    *({"path": f"runs/2025-12-18/{name}.json", "run_id": name} for name in RUN_IDS),
    *({"path": f"runs/{date}/run_a.json"} for date in ("2025-12-99", "2025-2-18", "..")),
]


def test_a_leaf_of_a_run_with_any_value_is_parsed_as_by_the_rule() -> None:
    def holds(change: dict[str, Any]) -> None:
        content = structs.replace(LEAVES[0], **change).encode()
        assert _found(parse_leaf, content) == _found(parse_leaf_by_rule, content)

    assert offenders(holds, CHANGES) == []


@given(
    change=st.sampled_from(CHANGES),
    start=st.integers(0, 500),
    removed=st.integers(0, 2),
    put=st.sampled_from([b"", b"0", b"9", b"-", b".", b'"', b" ", b"\n", b"\xff", b"A"]),
)
def test_a_leaf_of_a_run_with_a_byte_changed_is_parsed_as_by_the_rule(
    change: dict[str, Any], start: int, removed: int, put: bytes
) -> None:
    whole = structs.replace(LEAVES[0], **change).encode()
    content = whole[:start] + put + whole[start + removed :]
    assert _found(parse_leaf, content) == _found(parse_leaf_by_rule, content)


def test_a_leaf_of_an_advisory_with_a_field_changed_is_refused() -> None:
    def holds(change: dict[str, Any]) -> None:
        leaf = LEAVES[5]
        assert parse_leaf(changed(leaf, {})) == leaf
        with pytest.raises(EvidenceError, match=r"in a leaf|fields of a leaf"):
            parse_leaf(changed(leaf, change))

    assert (
        offenders(
            holds,
            [
                {"kind": "run"},
                {"kind": "conflict"},
                {"advisory_id": ...},
                {"advisory_id": "a/b"},
                {"advisory_id": 1},
                {"run_id": ...},
                {"run_id": "diff"},
                {"link_sha256": "AB" * 32},
                {"link_sha256": None},
                {"link_sha256": ...},
                {"code": "ADVISORY_CONFLICT"},
                {"path": "runs/2025-12-18/run_a.json"},
                {"sha256": "ab" * 32},
            ],
        )
        == []
    )


def test_a_conflict_of_a_run_is_none_of_an_advisory() -> None:
    for leaf, code in ((LEAVES[2], "ADVISORY_CONFLICT"), (LEAVES[7], "RUN_CONFLICT")):
        with pytest.raises(EvidenceError, match="another value of code"):
            parse_leaf(changed(leaf, {"code": code}))


def test_a_conflict_has_one_code() -> None:
    def holds(code: str | None) -> None:
        with pytest.raises(EvidenceError, match="another value of code"):
            parse_leaf(changed(LEAVES[2], {"code": code}))

    assert offenders(holds, ["KEY_MISMATCH", "ARTIFACT_CORRUPT", "x", "", "A" * 65, None]) == []


def test_a_rejected_record_has_a_code_of_its_own() -> None:
    def holds(code: object) -> None:
        with pytest.raises(EvidenceError, match="another value of code"):
            parse_leaf(changed(LEAVES[3], {"code": code}))

    assert offenders(holds, ["RUN_CONFLICT", "ARTIFACT_CORRUPT", "x", 1]) == []


GOOD = LEAVES[0].encode()


def test_a_leaf_in_other_bytes_is_refused() -> None:
    def holds(content: bytes) -> None:
        assert content != GOOD
        with pytest.raises(EvidenceError, match="expected a leaf"):
            parse_leaf(content)

    assert (
        offenders(
            holds,
            [
                b" " + GOOD,
                GOOD + b"\n",
                GOOD.replace(b":", b": ", 1),
                GOOD.replace(b'"kind":"run",', b"")[:-1] + b',"kind":"run"}',
                GOOD[:-1] + b',"v":1}',
                GOOD.replace(b'"run_a"', b'"run\\u005fa"'),
                GOOD[:-1],
                b"[" + GOOD + b"]",
                b"\xef\xbb\xbf" + GOOD,
                b"",
                b"null",
            ],
        )
        == []
    )
