"""Rows of advisories out of links and records: who claimed what, and what does not fit."""

from typing import Any

from pipeline.core.advisories.outcome import StoredAdvisory, stored_advisory
from pipeline.core.advisories.verdict import JudgedAdvisory, judge_advisory_record
from pipeline.core.record import RecordId, RecordSource
from pipeline.recovery.rebuild.rows import RebuiltAdvisories
from tests.builders import advisory_request, record

TOPIC = "rmos.advisories.requests"
KEY = ("run_1", "adv_1")
PATH = "runs/2025-12-18/run_1_advisory_adv_1.json"
RUNS = {"run_1": "runs/2025-12-18/run_1.json"}


def judged(**changes: Any) -> JudgedAdvisory:
    verdict = judge_advisory_record(*record(advisory_request(**({"run_id": "run_1"} | changes))))
    assert isinstance(verdict, JudgedAdvisory)
    return verdict


def asked(offset: int, **changes: Any) -> tuple[RecordSource, JudgedAdvisory]:
    return RecordSource(1, RecordId(TOPIC, 0, offset)), judged(**changes)


def stored(offset: int | None, path: str | None, **changes: Any) -> StoredAdvisory:
    source = None if offset is None else RecordSource(1, RecordId(TOPIC, 0, offset))
    return stored_advisory(judged(**changes), source, path)


def rebuilt(
    links: list[StoredAdvisory], records: list[tuple[RecordSource, JudgedAdvisory]], committed: int
) -> RebuiltAdvisories:
    rows = RebuiltAdvisories([])
    for link in links:
        rows.add_link(link)
    assert rows.unexpected == []
    for source, verdict in records:
        rows.explain(source, verdict, is_consumed=source.id.offset < committed)
    return rows


def test_the_first_record_of_a_link_is_its_source() -> None:
    rows = rebuilt([stored(None, PATH)], [asked(3), asked(4), asked(5, kind="note")], 6)
    assert rows.rows == {KEY: stored(3, PATH)}
    assert (rows.changed, list(rows.without_record())) == ([], [])


def test_a_link_made_by_a_record_that_was_not_committed_has_its_source_too() -> None:
    assert rebuilt([stored(None, PATH)], [asked(3)], 0).rows == {KEY: stored(3, PATH)}


def test_a_committed_record_without_a_link_is_a_claim() -> None:
    rows = rebuilt([], [asked(3), asked(4, title="other")], 5)
    assert rows.rows == {KEY: stored(3, None)}
    assert list(rows.to_be_linked({})) == []
    assert list(rows.to_be_linked(RUNS)) == [KEY]


def test_a_record_that_was_not_committed_claims_nothing() -> None:
    assert rebuilt([], [asked(3)], 3).rows == {}


def test_a_link_that_its_first_request_did_not_make_is_reported() -> None:
    rows = rebuilt([stored(None, PATH, title="changed")], [asked(3)], 4)
    assert rows.rows == {KEY: stored(3, PATH)}
    assert rows.changed == [KEY]


def test_a_link_without_a_record_keeps_its_row() -> None:
    rows = rebuilt([stored(None, PATH)], [], 1)
    assert rows.rows == {KEY: stored(None, PATH)}
    assert list(rows.without_record()) == [KEY]


def test_links_beside_another_run_or_none_are_unexpected() -> None:
    rows = rebuilt([stored(None, PATH)], [], 0)
    assert list(rows.misplaced(RUNS)) == []
    (found,) = rows.misplaced({})
    assert (found.path, found.reason) == (PATH, "expected its run run_1, found none")
    (found,) = rows.misplaced({"run_1": "runs/2026-01-01/run_1.json"})
    assert found.reason == "expected the link beside runs/2026-01-01/run_1.json"


def test_the_second_link_of_one_advisory_is_unexpected() -> None:
    rows = rebuilt([stored(None, PATH)], [], 0)
    other = "runs/2026-01-01/run_1_advisory_adv_1.json"
    rows.add_link(stored(None, other))
    assert [each.path for each in rows.unexpected] == [other]
    assert rows.rows[KEY].link_path == PATH
