"""What becomes of advisory requests in the store: links, rows and outcomes."""

import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.advisories.outcome import AdvisoryOutcome, advisory_event
from pipeline.core.advisories.verdict import judge_advisory_record
from pipeline.core.record import RecordId, RecordSource
from pipeline.core.reject_limit import LEAST_SEEN
from pipeline.disk.system_calls import SystemCalls
from pipeline.errors import RejectLimitError
from pipeline.storage.advisory_store import AdvisoryRecord, AdvisoryStore
from pipeline.storage.batch_plan import JudgedRecord
from pipeline.storage.batch_store import BatchResult, RejectLimit
from pipeline.storage.index.listing import list_runs
from pipeline.storage.run_store import RunStore
from pipeline.storage.store import open_store_to_write
from schemas.run_filter import RunFilter
from tests.builders import ABSENT, advisory_request, record, run_request, sha256
from tests.storage.stores import (
    CALL_NAMES,
    TIMESTAMP_MS,
    NamedCalls,
    WatchedCalls,
    files,
    in_child,
    judged_record,
    make_store,
    opened,
    rows,
)

TOPIC = "rmos.advisories.requests"
LIMIT = RejectLimit("rmos.advise")
LINK = "runs/2025-12-18/run_1_advisory_adv_1.json"
RUN = run_request(run_id="run_1")


def advisory(**changes: Any) -> dict[str, Any]:
    return advisory_request(**({"run_id": "run_1"} | changes))


def asked(
    request: dict[str, Any], offset: int = 0, *, partition: int = 0, epoch: int = 1
) -> AdvisoryRecord:
    place = RecordSource(epoch, RecordId(TOPIC, partition, offset))
    key, value = record(request)
    return JudgedRecord.of(place, judge_advisory_record(key, value), value, TIMESTAMP_MS)


def tombstone(offset: int) -> AdvisoryRecord:
    place = RecordSource(1, RecordId(TOPIC, 0, offset))
    return JudgedRecord.of(place, judge_advisory_record(b"k", None), None, TIMESTAMP_MS)


@contextmanager
def opened_for_advisories(root: Path, calls: SystemCalls | None = None) -> Iterator[AdvisoryStore]:
    store = AdvisoryStore(open_store_to_write(root, calls))
    try:
        yield store
    finally:
        store.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "store"
    make_store(root)
    return root


@pytest.fixture
def store(root: Path) -> Iterator[AdvisoryStore]:
    with opened_for_advisories(root) as store:
        yield store


def make_run(root: Path, request: dict[str, Any] = RUN, offset: int = 0) -> None:
    with opened(root) as runs:
        runs.commit([judged_record(request, offset)])


def words(result: BatchResult[AdvisoryOutcome]) -> list[str]:
    return [outcome.code or outcome.kind for outcome in result.outcomes]


def told(records: list[AdvisoryRecord], result: BatchResult[AdvisoryOutcome]) -> list[bytes]:
    pairs = zip(result.outcomes, records, strict=True)
    return [advisory_event(outcome, each.source) for outcome, each in pairs]


def links(root: Path) -> list[str]:
    return [path for path in files(root) if "_advisory_" in path]


def test_an_advisory_of_a_known_run_is_linked_in_the_folder_of_the_run(
    root: Path, store: AdvisoryStore
) -> None:
    make_run(root)
    request = advisory(created_at_utc="2026-03-01T00:00:00Z")
    assert words(store.commit([asked(request, 7)])) == ["linked"]
    link = json.loads(files(root)[LINK])
    content = request["content_text"].encode()
    assert link["content_sha256"] == sha256(content)
    blob = f"attachments/{sha256(content)[:2]}/{sha256(content)[2:4]}/{sha256(content)}"
    assert files(root)[blob] == content
    assert stat.S_IMODE((root / LINK).stat().st_mode) == 0o444
    (row,) = rows(root)["advisories"]
    assert (row["link_path"], row["link_sha256"]) == (LINK, sha256(files(root)[LINK]))
    assert (row["source_partition"], row["source_offset"]) == (0, 7)


def test_attaching_leaves_bytes_mtime_and_row_of_the_run(root: Path, store: AdvisoryStore) -> None:
    make_run(root)
    path = root / "runs/2025-12-18/run_1.json"
    before, row = look(path), rows(root)["runs"]
    store.commit([asked(advisory())])
    assert look(path) == before
    assert rows(root)["runs"] == row


def look(path: Path) -> tuple[bytes, int, int, int]:
    """Return all of a file but the time when it was read, which a look changes."""
    state = path.stat()
    return path.read_bytes(), state.st_ino, state.st_mode, state.st_mtime_ns


def test_the_same_offset_again_is_linked_again(root: Path, store: AdvisoryStore) -> None:
    make_run(root)
    records = [asked(advisory(), 7)]
    first, again = store.commit(records), store.commit(records)
    assert words(again) == ["linked"]
    assert told(records, first) == told(records, again)


def test_the_same_claim_from_another_place_is_a_duplicate_and_the_first_stays(
    root: Path, store: AdvisoryStore
) -> None:
    make_run(root)
    store.commit([asked(advisory(), 7)])
    before = files(root), rows(root)["advisories"]
    assert words(store.commit([asked(advisory(title="other"), 8)])) == ["duplicate"]
    assert words(store.commit([asked(advisory(), 7, epoch=2)])) == ["duplicate"]
    assert (files(root), rows(root)["advisories"]) == before


def test_another_claim_for_the_same_id_is_a_conflict(root: Path, store: AdvisoryStore) -> None:
    make_run(root)
    store.commit([asked(advisory(), 7)])
    before = files(root)
    assert words(store.commit([asked(advisory(content_text="other"), 8)])) == ["ADVISORY_CONFLICT"]
    assert files(root) == before


def test_one_id_may_be_used_for_two_runs(root: Path, store: AdvisoryStore) -> None:
    make_run(root)
    make_run(root, run_request(run_id="run_2", created_at_utc="2026-01-02T00:00:00Z"), 1)
    batch = [asked(advisory(), 0), asked(advisory(run_id="run_2", kind="note"), 1)]
    assert words(store.commit(batch)) == ["linked", "linked"]
    assert links(root) == [LINK, "runs/2026-01-02/run_2_advisory_adv_1.json"]


def test_an_advisory_before_its_run_waits_with_a_row_and_no_file(
    root: Path, store: AdvisoryStore
) -> None:
    assert words(store.commit([asked(advisory(), 7)])) == ["waiting"]
    assert files(root) == {}
    (row,) = rows(root)["advisories"]
    assert row["link_path"] is None


def test_a_claim_is_linked_by_its_own_record_once_the_run_is_there(
    root: Path, store: AdvisoryStore
) -> None:
    records = [asked(advisory(), 7)]
    store.commit(records)
    make_run(root)
    assert words(store.retry_links(records)) == ["linked"]
    assert links(root) == [LINK]
    make_run(other := root.parent / "other")
    with opened_for_advisories(other) as at_once:
        assert told(records, at_once.commit(records)) == told(records, store.commit(records))
    assert files(other) == files(root)
    assert rows(other)["advisories"] == rows(root)["advisories"]


def test_a_duplicate_never_makes_the_link_of_a_claim_that_waits(
    root: Path, store: AdvisoryStore
) -> None:
    store.commit([asked(advisory(), 7)])
    make_run(root)
    assert words(store.commit([asked(advisory(title="other"), 8)])) == ["duplicate"]
    assert links(root) == []
    store.retry_links([asked(advisory(), 7)])
    assert json.loads(files(root)[LINK])["title"] == advisory()["title"]


def test_a_conflict_with_a_claim_that_waits_is_one_already(store: AdvisoryStore) -> None:
    batch = [asked(advisory(), 0), asked(advisory(), 1), asked(advisory(kind="note"), 2)]
    assert words(store.commit(batch)) == ["waiting", "duplicate", "ADVISORY_CONFLICT"]
    assert words(store.commit(batch)) == ["waiting", "duplicate", "ADVISORY_CONFLICT"]


def test_another_record_at_the_offset_of_a_claim_makes_no_link(
    root: Path, store: AdvisoryStore
) -> None:
    store.commit([asked(advisory(), 7)])
    make_run(root)
    result = store.retry_links([asked(advisory(title="other"), 7)])
    assert words(result) == ["waiting"]
    assert result.outcomes[0].drifted
    assert links(root) == []


@pytest.mark.parametrize("damage", ["missing", "changed", "a folder"])
def test_a_link_that_is_not_what_its_row_says_is_reported_and_not_touched(
    root: Path, store: AdvisoryStore, damage: str
) -> None:
    make_run(root)
    store.commit([asked(advisory(), 7)])
    (root / LINK).unlink()
    if damage == "changed":
        (root / LINK).write_bytes(b"{}")
    if damage == "a folder":
        (root / LINK).mkdir()
    before = files(root), rows(root)["advisories"]
    for each in (asked(advisory(), 7), asked(advisory(), 8), asked(advisory(kind="note"), 9)):
        assert words(store.commit([each])) == ["ARTIFACT_CORRUPT"]
    assert (files(root), rows(root)["advisories"]) == before


def test_a_foreign_file_in_the_place_of_a_new_link_is_reported_for_ever(
    root: Path, store: AdvisoryStore
) -> None:
    make_run(root)
    (root / LINK).write_bytes(b"foreign")
    records = [asked(advisory(), 7), asked(advisory(), 8)]
    assert words(store.commit(records)) == ["ARTIFACT_CORRUPT"] * 2
    assert words(store.commit(records)) == ["ARTIFACT_CORRUPT"] * 2
    assert (root / LINK).read_bytes() == b"foreign"


def test_a_blob_with_other_bytes_leaves_no_link_that_names_it(
    root: Path, store: AdvisoryStore
) -> None:
    make_run(root)
    name = sha256(advisory()["content_text"])
    blob = root / "attachments" / name[:2] / name[2:4] / name
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"foreign")
    assert words(store.commit([asked(advisory(), 7)])) == ["ARTIFACT_CORRUPT"]
    assert links(root) == []
    assert blob.read_bytes() == b"foreign"


def test_records_again_move_no_position(root: Path, store: AdvisoryStore) -> None:
    store.commit([asked(advisory(), 7)])
    store.retry_links([asked(advisory(), 9)])
    (position,) = rows(root)["positions"]
    assert (position["topic"], position["next_offset"]) == (TOPIC, 8)


def test_waiting_counts_as_good_and_dead_letters_do_not(store: AdvisoryStore) -> None:
    waiting = [asked(advisory(advisory_id=f"a{n}"), n) for n in range(LEAST_SEEN * 2)]
    store.commit(waiting, LIMIT)
    bad = [tombstone(LEAST_SEEN * 2 + n) for n in range(LEAST_SEEN + 1)]
    store.commit(bad[:-1], LIMIT)
    with pytest.raises(RejectLimitError):
        store.commit(bad[-1:], LIMIT)


def test_links_are_listed_by_time_and_id_whatever_came_first(
    root: Path, store: AdvisoryStore
) -> None:
    make_run(root)
    named = [
        ("b", "2026-01-01T00:00:00Z"),
        ("c", "2025-01-01T00:00:00Z"),
        ("a", "2026-01-01T00:00:00Z"),
        ("d", "2026-01-01T00:00:00.000001Z"),
    ]
    for offset, (name, time) in enumerate(named):
        store.commit([asked(advisory(advisory_id=name, created_at_utc=time), offset)])
    store.commit([asked(advisory(advisory_id="other", run_id="run_9"), 9)])
    listed = store.index.find_with_links("run_1")[1]
    assert [each.advisory_id for each in listed] == ["c", "a", "b", "d"]


def test_a_listing_counts_links_and_explanations_that_are_linked(
    root: Path, store: AdvisoryStore
) -> None:
    make_run(root)
    make_run(root, run_request(run_id="run_2"), 1)
    make_run(root, run_request(run_id="run_3"), 2)
    store.commit(
        [
            asked(advisory(), 0),
            asked(advisory(advisory_id="adv_2", kind="note"), 1),
            asked(advisory(run_id="run_2", kind="note"), 2),
            asked(advisory(run_id="run_4"), 3),
        ]
    )
    make_run(root, run_request(run_id="run_4"), 3)
    with store.index.looking_up() as connection:
        items = list_runs(connection, RunFilter()).items
    assert {i["run_id"]: (i["advisory_count"], i["explanation_status"]) for i in items} == {
        "run_1": (2, "READY"),
        "run_2": (1, "NONE"),
        "run_3": (0, "NONE"),
        "run_4": (0, "NONE"),
    }


def test_claims_whose_run_has_come_are_found_page_by_page(root: Path, store: AdvisoryStore) -> None:
    names = [f"run_{n}" for n in range(6)]
    store.commit([asked(advisory(run_id=name), n, partition=n % 2) for n, name in enumerate(names)])
    store.commit([asked(advisory(run_id="run_1", advisory_id="of another epoch"), 50, epoch=2)])
    for offset, name in enumerate(names[1:]):
        make_run(root, run_request(run_id=name), offset)
    claims, place = store.claims, (TOPIC, 1)
    assert claims.partitions(TOPIC) == {0, 1}
    assert claims.due(place, after=-1, overdue_to=0, limit=2) == [(1, True), (3, True)]
    assert claims.due(place, after=3, overdue_to=0, limit=2) == [(5, True)]
    assert claims.due((TOPIC, 0), after=-1, overdue_to=9, limit=9) == [
        (0, False),
        (2, True),
        (4, True),
    ]


def test_a_claim_that_was_reported_is_due_again_only_once_its_run_is_there(
    root: Path, store: AdvisoryStore
) -> None:
    store.commit([asked(advisory(run_id=f"run_{n}"), n) for n in range(3)])
    claims, place = store.claims, (TOPIC, 0)
    assert claims.last_unreported(place) == 2
    claims.note_reported(place, 2)
    assert claims.last_unreported(place) == 2
    assert claims.due(place, after=-1, overdue_to=9, limit=9) == [(2, False)]
    claims.note_reported(place, 3)
    claims.note_reported(place, 1)
    assert claims.last_unreported(place) is None
    make_run(root, run_request(run_id="run_0"), 0)
    assert claims.due(place, after=-1, overdue_to=9, limit=9) == [(0, True)]


def test_a_claim_in_hand_is_found_until_it_is_released(store: AdvisoryStore) -> None:
    claims, place = store.claims, (TOPIC, 0)
    claims.take(place, [4, 2])
    claims.take(place, [4, 7])
    claims.take((TOPIC, 1), [1])
    assert claims.in_hand(place) == [2, 4, 7]
    assert claims.partitions(TOPIC) == {0, 1}
    claims.release(place, [2, 7])
    assert claims.in_hand(place) == [4], "the next owner of the partition may have taken it"
    assert claims.in_hand((TOPIC, 1)) == [1]


def test_no_question_about_advisories_scans_a_table(store: AdvisoryStore, root: Path) -> None:
    plans = {
        "SELECT * FROM advisories WHERE (run_id, advisory_id) IN (SELECT json_extract(value, "
        "'$[0]'), json_extract(value, '$[1]') FROM json_each('[]'))": "sqlite_autoindex",
        "SELECT run_id, count(*) FROM advisories WHERE run_id IN (SELECT value FROM "
        "json_each('[]')) AND link_path IS NOT NULL GROUP BY run_id": "SEARCH advisories",
        "SELECT * FROM advisories WHERE run_id = 'a' AND link_path IS NOT NULL ORDER BY "
        "created_at_us, advisory_id": "advisories_of_run",
        "SELECT source_offset, EXISTS (SELECT * FROM runs WHERE runs.run_id = advisories.run_id) "
        "FROM advisories WHERE link_path IS NULL AND source_epoch = 1 AND source_topic = 't' AND "
        "source_partition = 1 AND source_offset > 2 AND ((EXISTS (SELECT * FROM runs WHERE "
        "runs.run_id = advisories.run_id)) OR source_offset BETWEEN 0 AND 9) "
        "ORDER BY source_offset": "advisories_unlinked",
        "SELECT max(source_offset) FROM advisories WHERE link_path IS NULL AND source_epoch = 1 "
        "AND source_topic = 't' AND source_partition = 1": "advisories_unlinked",
        "SELECT source_partition FROM advisories WHERE link_path IS NULL AND source_epoch = 1 "
        "AND source_topic = 't'": "advisories_unlinked",
    }
    with store.index.reading() as connection:
        for query, wanted in plans.items():
            plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}")]
            assert any(wanted in line for line in plan), plan
            assert not any(line.startswith("SCAN advisories") for line in plan), plan
            assert not any("TEMP B-TREE FOR ORDER" in line for line in plan), plan


def test_workers_of_runs_and_advisories_share_one_store(root: Path, store: AdvisoryStore) -> None:
    with opened(root) as runs:
        for number in range(20):
            store.commit([asked(advisory(run_id=f"run_{number}"), number)])
            runs.commit([judged_record(run_request(run_id=f"run_{number}"), number)])
            assert words(store.retry_links([asked(advisory(run_id=f"run_{number}"), number)])) == [
                "linked"
            ]
    assert len(links(root)) == 20


def batch() -> list[AdvisoryRecord]:
    return [
        asked(advisory(), 0),
        asked(advisory(advisory_id="adv_2", content_text=ABSENT, content_json={"a": 1}), 1),
        tombstone(2),
        asked(advisory(), 3),
        asked(advisory(kind="note"), 4),
        asked(advisory(run_id="run_9"), 5),
    ]


OUTCOMES = ["linked", "linked", "TOMBSTONE", "duplicate", "ADVISORY_CONFLICT", "waiting"]


@pytest.mark.slow
@pytest.mark.parametrize("calls_class", [WatchedCalls, NamedCalls])
def test_killed_at_any_system_call_a_restart_does_it_all(
    tmp_path: Path, calls_class: type[WatchedCalls]
) -> None:
    template, expected = tmp_path / "template", tmp_path / "expected"
    make_store(template)
    make_run(template)
    shutil.copytree(template, expected)
    seen: list[str] = []
    watched = calls_class()
    with opened_for_advisories(expected, watched) as store:
        watched.before = lambda name, _: seen.append(name)
        assert words(result := store.commit(batch(), LIMIT)) == OUTCOMES
    assert {"link_unnamed", "syncfs"} <= set(seen) or "link_named" in seen
    expected_files, expected_rows = files(expected), rows(expected)
    for number in range(len(seen)):
        root = shutil.copytree(template, tmp_path / f"killed-{number}")
        status, _ = in_child(
            lambda root=root, number=number: _killed_at(root, calls_class(), number)
        )
        assert os.WIFSIGNALED(status), seen[number]
        with opened_for_advisories(root) as store:
            again = store.commit(batch(), LIMIT)
        assert words(again) == OUTCOMES, seen[number]
        assert told(batch(), again) == told(batch(), result), seen[number]
        assert files(root) == expected_files, seen[number]
        assert rows(root) == expected_rows, seen[number]
    assert set(seen) <= set(CALL_NAMES)


def _killed_at(root: Path, calls: WatchedCalls, number: int) -> bytes:
    with opened_for_advisories(root, calls) as store:
        left = [number]

        def kill(name: str, arguments: tuple[Any, ...]) -> None:
            del name, arguments
            if left[0] == 0:
                os.kill(os.getpid(), 9)
            left[0] -= 1

        calls.before = kill
        store.commit(batch(), LIMIT)
    return b""


def test_two_stores_of_one_folder_take_turns(root: Path) -> None:
    with (
        opened(root) as runs,
        opened_for_advisories(root) as first,
        opened_for_advisories(root) as second,
    ):
        assert isinstance(runs, RunStore)
        runs.commit([judged_record(RUN)])
        assert words(first.commit([asked(advisory(), 0)])) == ["linked"]
        assert words(second.commit([asked(advisory(), 1, partition=1)])) == ["duplicate"]
