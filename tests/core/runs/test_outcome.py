"""What becomes of a record, given what the store holds."""

from typing import Any

import pytest
from msgspec import structs

from pipeline.core.record import RecordId, RecordSource
from pipeline.core.runs.artifact import index_fields_of
from pipeline.core.runs.outcome import (
    Outcome,
    StoredRun,
    resolve_rejected,
    resolve_run,
    run_of_fields,
    stored_run,
)
from pipeline.core.runs.verdict import Rejected
from tests.builders import judged, red_request, run_request

SOURCE = RecordSource(1, RecordId("rmos.runs.requests", 0, 7))
JUDGED = judged(run_request())
STORED = stored_run(JUDGED, SOURCE)


def resolve(run: StoredRun = STORED, source: RecordSource = SOURCE, **options: Any) -> Outcome:
    return resolve_run(JUDGED, run, source, **({"intact": True} | options))


def test_the_record_that_made_a_run_is_persisted() -> None:
    outcome = resolve()
    assert (outcome.kind, outcome.code, outcome.drifted) == ("persisted", None, False)
    assert (outcome.run, outcome.run_id) == (STORED, STORED.run_id)
    assert not outcome.is_dead_letter
    assert outcome.may_cut


@pytest.mark.parametrize(
    "other",
    [
        SOURCE._replace(epoch=2),
        SOURCE._replace(id=SOURCE.id._replace(topic="rmos.runs.legacy")),
        SOURCE._replace(id=SOURCE.id._replace(partition=1)),
        SOURCE._replace(id=SOURCE.id._replace(offset=8)),
    ],
)
def test_the_same_request_from_any_other_source_is_a_duplicate(other: RecordSource) -> None:
    outcome = resolve(source=other)
    assert (outcome.kind, outcome.may_cut, outcome.is_dead_letter) == ("duplicate", True, False)


def test_a_run_that_its_file_alone_shows_has_duplicates_only() -> None:
    outcome = resolve(structs.replace(STORED, source=None))
    # Nobody vouches for its file, so no machine may cut by it.
    assert (outcome.kind, outcome.may_cut) == ("duplicate", False)


def test_another_request_is_a_conflict_with_both_hashes_in_its_message() -> None:
    outcome = resolve(structs.replace(STORED, request_sha256="0" * 64))
    assert (outcome.kind, outcome.code, outcome.may_cut) == ("conflict", "RUN_CONFLICT", False)
    assert outcome.is_dead_letter
    assert outcome.message is not None
    assert "0" * 64 in outcome.message
    assert JUDGED.request_sha256 in outcome.message


@pytest.mark.parametrize("request_sha256", [STORED.request_sha256, "0" * 64])
def test_a_damaged_file_comes_first_and_nothing_is_reported_of_the_run(request_sha256: str) -> None:
    outcome = resolve(structs.replace(STORED, request_sha256=request_sha256), intact=False)
    assert (outcome.kind, outcome.code) == ("rejected", "ARTIFACT_CORRUPT")
    assert (outcome.run, outcome.may_cut, outcome.run_id) == (None, False, STORED.run_id)
    assert outcome.message is not None
    assert STORED.artifact_path in outcome.message


def test_a_rejected_record_keeps_its_reason() -> None:
    outcome = resolve_rejected(Rejected("KEY_MISMATCH", "Expected the key.", "run_1"))
    assert outcome == Outcome(
        "rejected", run_id="run_1", code="KEY_MISMATCH", message="Expected the key."
    )
    assert outcome.is_dead_letter
    assert not outcome.may_cut


def test_drift_describes_the_stored_run() -> None:
    old = structs.replace(STORED, artifact_sha256="1" * 64)
    outcome = resolve(old)
    assert (outcome.kind, outcome.drifted, outcome.run) == ("persisted", True, old)
    assert outcome.may_cut


@pytest.mark.parametrize(
    "old",
    [
        {"status": "BLOCKED"},
        {"status": "ERROR"},
        {"risk_level": "RED"},
        {"risk_level": "UNKNOWN"},
        {"legacy": True},
    ],
)
def test_a_stored_run_that_may_not_be_cut_stays_so(old: dict[str, Any]) -> None:
    assert not resolve(structs.replace(STORED, **old)).may_cut
    assert not resolve(structs.replace(STORED, artifact_sha256="1" * 64, **old)).may_cut


def test_after_drift_the_new_rendering_has_a_say_too() -> None:
    blocked = judged(red_request())
    said_ok = structs.replace(
        STORED, request_sha256=blocked.request_sha256, artifact_sha256="1" * 64
    )
    assert said_ok.may_cut
    outcome = resolve_run(blocked, said_ok, SOURCE, intact=True)
    assert outcome.drifted
    assert not outcome.may_cut


def test_without_drift_the_row_describes_the_very_bytes() -> None:
    document = JUDGED.built.document
    assert (
        run_of_fields(
            index_fields_of(document),
            JUDGED.artifact_sha256,
            JUDGED.path,
            len(JUDGED.built.content),
            SOURCE,
        )
        == STORED
    )
    assert STORED.hashes == document["hashes"]
    assert STORED.size_bytes == len(JUDGED.built.content)


def test_a_conflict_describes_the_stored_run() -> None:
    other = judged(run_request(notes="changed"))
    assert resolve_run(other, STORED, SOURCE, intact=True).run == STORED


def test_the_index_holds_what_the_artifact_of_a_blocked_run_says() -> None:
    blocked = stored_run(judged(red_request()), SOURCE)
    assert (blocked.status, blocked.risk_level, blocked.legacy) == ("BLOCKED", "RED", False)
    assert blocked.block_reason == "rim speed above the blade's limit"
    assert list(blocked.hashes) == ["feasibility_sha256"]
