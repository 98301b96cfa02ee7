"""Records of the legacy topic: history is kept, and only a migration's messages are taken."""

from typing import Any

import pytest

from pipeline.core.advisories.verdict import judge_advisory_record
from pipeline.core.record import RecordId, RecordSource
from pipeline.core.runs.outcome import resolve_run, stored_run
from pipeline.core.runs.verdict import JudgedRun, Rejected, judge_run_record
from pipeline.legacy.record import judge_legacy_record
from pipeline.recovery.replay.request_topics import request_topics
from pipeline.topics import TopicNames
from tests.builders import ABSENT, advisory_request, attachment, record, run_request
from tests.legacy_rows import legacy_request, mapped, v1_row

SOURCE = RecordSource(1, RecordId("rmos.runs.legacy", 2, 7))


def rejected(request: dict[str, Any]) -> Rejected:
    verdict = judge_legacy_record(*record(request))
    assert isinstance(verdict, Rejected)
    return verdict


@pytest.mark.parametrize(
    "version", [ABSENT, None, "rmos.run_request/1", "rmos.legacy_run/2", "rmos.legacy_run/1 ", 1]
)
def test_no_other_version_is_taken_on_the_legacy_topic(version: Any) -> None:
    assert rejected(legacy_request(schema_version=version)).code == "UNSUPPORTED_VERSION"


def test_run_and_advisory_requests_are_refused_on_the_legacy_topic() -> None:
    for request in (run_request(), advisory_request(), run_request(schema_version=ABSENT)):
        assert rejected(request).code == "UNSUPPORTED_VERSION"


def test_a_legacy_row_is_refused_on_the_other_topics() -> None:
    verdict = judge_run_record(*record(legacy_request()))
    assert isinstance(verdict, Rejected)
    assert verdict.code == "UNSUPPORTED_VERSION"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"decision": ABSENT}, "decision: MISSING"),
        ({"unknown": 1}, "unknown: UNKNOWN_FIELD"),
        ({"meta": {}}, "meta.v1: MISSING"),
        ({"attachments": [attachment(sha256="1" * 64)]}, "attachments.0.sha256: HASH_MISMATCH"),
    ],
)
def test_what_no_migration_publishes_is_a_dead_letter(change: dict[str, Any], told: str) -> None:
    verdict = rejected(legacy_request(**change))
    assert verdict.code == "INVALID_LEGACY_RUN"
    assert told in verdict.message
    assert verdict.run_id == legacy_request()["run_id"]


def test_key_json_and_tombstones_are_checked_as_of_every_request() -> None:
    _, value = record(legacy_request())
    judged = (judge_legacy_record(*each) for each in ((b"x", value), (b"x", b"["), (b"x", None)))
    codes = [each.code for each in judged if isinstance(each, Rejected)]
    assert codes == ["KEY_MISMATCH", "INVALID_JSON", "TOMBSTONE"]


def test_no_machine_may_cut_by_history_however_green_it_is() -> None:
    run = mapped(v1_row(decision={"risk_level": "GREEN"})).judged
    stored = stored_run(run, SOURCE)
    assert (stored.status, stored.risk_level, stored.legacy) == ("OK", "GREEN", True)
    outcome = resolve_run(run, stored, SOURCE, intact=True)
    assert (outcome.kind, outcome.may_cut) == ("persisted", False)


def test_the_same_run_as_a_request_is_another_request() -> None:
    legacy = mapped(v1_row()).judged
    asked = judge_run_record(*record(run_request(run_id=legacy.run_id)))
    assert isinstance(asked, JudgedRun)
    later = RecordSource(1, RecordId("rmos.runs.requests", 2, 7))
    outcome = resolve_run(asked, stored_run(legacy, SOURCE), later, intact=True)
    assert (outcome.kind, outcome.code, outcome.may_cut) == ("conflict", "RUN_CONFLICT", False)


def test_every_request_topic_has_its_judge() -> None:
    judges = {topic.name: topic.judge for topic in request_topics(TopicNames("shop"))}
    assert judges == {
        "shop.runs.requests": judge_run_record,
        "shop.runs.legacy": judge_legacy_record,
        "shop.advisories.requests": judge_advisory_record,
    }
