"""What becomes of records in the store: files, rows and outcomes."""

import errno
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from pipeline.core.layout import attachment_path
from pipeline.core.reject_limit import LEAST_SEEN, WINDOW
from pipeline.core.runs.outcome import Outcome
from pipeline.core.runs.verdict import JudgedRun
from pipeline.disk.store_identity import begin_epoch
from pipeline.errors import RejectLimitError, StoreError, StoreNotReadyError
from pipeline.storage.batch_plan import JudgedRecord
from pipeline.storage.batch_store import RejectLimit
from pipeline.storage.run_store import RunStore
from pipeline.storage.store import open_store_to_write
from tests.builders import (
    attachment,
    attachment_ref,
    incomplete_request,
    red_request,
    rosette_request,
    router_request,
    run_request,
    sha256,
)
from tests.storage.stores import (
    TOPIC,
    WatchedCalls,
    change_index,
    events,
    files,
    judged_record,
    kinds,
    open_descriptors,
    opened,
    row_of,
    rows,
    source,
    tombstone,
)

LIMIT = RejectLimit("rmos.persist")
PATH = "runs/2025-12-18/run_1.json"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> Iterator[RunStore]:
    with opened(root) as store:
        yield store


def saw(**changes: Any) -> dict[str, Any]:
    return run_request(**({"run_id": "run_1"} | changes))


def one(store: RunStore, record: JudgedRecord) -> Outcome:
    (outcome,) = store.commit([record]).outcomes
    return outcome


def word(outcome: Outcome) -> str:
    return outcome.code or outcome.kind


def content(record: JudgedRecord) -> bytes:
    assert isinstance(record.verdict, JudgedRun)
    return record.verdict.built.content


def test_a_new_run_is_persisted_with_its_file_and_its_row(root: Path, store: RunStore) -> None:
    record = judged_record(saw(), 7)
    outcome = one(store, record)
    assert (word(outcome), outcome.may_cut, outcome.drifted) == ("persisted", True, False)
    assert files(root) == {PATH: content(record)}
    row = row_of(root, "run_1")
    assert row["artifact_sha256"] == sha256(content(record))
    assert row["size_bytes"] == len(content(record))
    assert (row["source_epoch"], row["source_topic"]) == (1, TOPIC)
    assert (row["source_partition"], row["source_offset"]) == (0, 7)


def test_the_same_offset_again_is_persisted_again(root: Path, store: RunStore) -> None:
    record = judged_record(saw(), 7)
    first = store.commit([record])
    again = store.commit([record])
    assert events([record], first) == events([record], again)
    assert len(rows(root)["runs"]) == 1


@pytest.mark.parametrize(("partition", "offset"), [(0, 8), (1, 7), (1, 0)])
def test_the_same_request_from_another_place_is_a_duplicate(
    store: RunStore, partition: int, offset: int
) -> None:
    one(store, judged_record(saw(), 7))
    outcome = one(store, judged_record(saw(), offset, partition=partition))
    assert (word(outcome), outcome.may_cut) == ("duplicate", True)
    assert outcome.run is not None
    assert outcome.run.source == source(7)


def test_the_same_offset_of_another_epoch_is_a_duplicate(store: RunStore) -> None:
    one(store, judged_record(saw(), 7))
    assert word(one(store, judged_record(saw(), 7, epoch=2))) == "duplicate"


def test_another_request_for_a_run_is_a_conflict_that_describes_the_first(
    root: Path, store: RunStore
) -> None:
    one(store, judged_record(saw(), 0))
    before = files(root), rows(root)["runs"]
    outcome = one(store, judged_record(saw(notes="changed"), 1))
    assert (word(outcome), outcome.kind, outcome.may_cut) == ("RUN_CONFLICT", "conflict", False)
    assert outcome.run == store.index.find("run_1")
    assert (files(root), rows(root)["runs"]) == before


def test_another_date_for_a_run_is_a_conflict_without_a_second_file(
    root: Path, store: RunStore
) -> None:
    one(store, judged_record(saw(), 0))
    other = judged_record(saw(created_at_utc="2025-12-19T00:00:00Z"), 1, partition=3)
    assert word(one(store, other)) == "RUN_CONFLICT"
    assert list(files(root)) == [PATH]


def test_a_record_that_can_never_make_a_run_is_rejected_and_moves_the_position(
    root: Path, store: RunStore
) -> None:
    outcome = one(store, tombstone(4))
    assert (word(outcome), outcome.kind, outcome.run) == ("TOMBSTONE", "rejected", None)
    assert files(root) == {}
    assert store.index.positions(1) == {(TOPIC, 0): 5}


def test_a_batch_of_rejected_records_alone_asks_no_flush_of_files(root: Path) -> None:
    calls = WatchedCalls()
    with opened(root, calls) as store:
        made: list[str] = []
        calls.before = lambda name, arguments: made.append(name)
        assert set(kinds(store.commit([tombstone(n) for n in range(100)]))) == {"TOMBSTONE"}
    assert made == []


def test_an_empty_batch_is_nothing(root: Path, store: RunStore) -> None:
    assert store.commit([], LIMIT).outcomes == []
    assert files(root) == {}


def test_records_of_one_run_in_one_batch_are_told_apart_in_their_order(store: RunStore) -> None:
    batch = [
        judged_record(saw(), 0),
        judged_record(saw(notes="changed"), 1),
        judged_record(saw(), 2),
        judged_record(saw(), 0, partition=1),
    ]
    expected = ["persisted", "RUN_CONFLICT", "duplicate", "duplicate"]
    assert kinds(store.commit(batch)) == expected
    assert kinds(store.commit(batch)) == expected


def test_a_run_that_is_not_ok_keeps_its_request_where_only_the_owner_looks(
    root: Path, store: RunStore
) -> None:
    record = judged_record(red_request(run_id="run_1"))
    outcome = one(store, record)
    assert (word(outcome), outcome.may_cut) == ("persisted", False)
    assert isinstance(record.verdict, JudgedRun)
    name = record.verdict.request_sha256
    path = root / "quarantine" / name[:2] / name[2:4] / name
    assert sha256(path.read_bytes()) == name
    assert path.stat().st_mode & 0o777 == 0o400
    assert {folder.stat().st_mode & 0o777 for folder in path.parents[:3]} == {0o700}


def test_a_path_that_large_gcode_replaces_is_kept_where_only_the_owner_looks(
    root: Path, store: RunStore
) -> None:
    large = {"gcode_text": "G1 X1\n" * 40_000, "gcode_path": "/jobs/17.nc"}
    record = judged_record(saw(outputs=large))
    assert word(one(store, record)) == "persisted"
    assert isinstance(record.verdict, JudgedRun)
    name = record.verdict.request_sha256
    path = root / "quarantine" / name[:2] / name[2:4] / name
    assert b'"gcode_path":"/jobs/17.nc"' in path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o400


def test_what_a_run_names_and_the_store_has_not_is_named_until_it_comes(
    root: Path, store: RunStore
) -> None:
    here, absent = attachment(b"here"), attachment_ref(b"absent", kind="gcode")
    request = saw(outputs=None, attachments=[here, absent])
    first, again = judged_record(request, 0), judged_record(request, 1)
    before = one(store, first)
    assert before.missing_attachments == (sha256(b"absent"),)
    assert (word(before), before.may_cut) == ("persisted", True)
    assert one(store, again).missing_attachments == (sha256(b"absent"),)
    path = root / attachment_path(sha256(b"absent"))
    path.parent.mkdir(parents=True)
    path.write_bytes(b"absent")
    after = one(store, first)
    assert after == structs.replace(before, missing_attachments=())
    assert (word(one(store, again)), one(store, again).missing_attachments) == ("duplicate", ())
    # A link leads to what is not the store's, so it is no blob.
    path.rename(root / "elsewhere")
    path.symlink_to(root / "elsewhere")
    assert one(store, first).missing_attachments == (sha256(b"absent"),)


def test_what_is_withheld_of_a_run_is_never_missing(store: RunStore) -> None:
    cut = attachment_ref(b"G1", kind="gcode")
    assert one(store, judged_record(red_request(attachments=[cut]))).missing_attachments == ()


def test_attachments_are_linked_before_the_artifact_that_names_them(root: Path) -> None:
    calls = WatchedCalls()
    linked: list[str] = []

    def note(name: str, arguments: tuple[Any, ...]) -> None:
        if name == "link_unnamed":
            linked.append(arguments[1])

    batch = [
        judged_record(saw(attachments=[attachment(b"one"), attachment(b"two")]), 0),
        judged_record(red_request(run_id="run_2"), 1),
    ]
    with opened(root, calls) as store:
        calls.before = note
        store.commit(batch)
    assert set(linked[:2]) == {sha256(b"one"), sha256(b"two")}
    assert len(linked[2]) == 64
    assert linked[3:] == ["run_1.json", "run_2.json"]


# A file that is not what its row says.


def remove(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def flip_a_bit(path: Path) -> None:
    changed = bytearray(path.read_bytes())
    changed[len(changed) // 2] ^= 1
    path.write_bytes(changed)


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def link_to_a_copy(path: Path) -> None:
    copy = path.with_name("copy")
    path.rename(copy)
    path.symlink_to(copy.name)


def link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def make_a_folder_of_it(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_a_pipe_of_it(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def make_a_file_of_its_folder(path: Path) -> None:
    path.unlink()
    path.parent.rmdir()
    path.parent.write_bytes(b"")


DAMAGES: list[Callable[[Path], None]] = [
    remove,
    truncate,
    empty,
    flip_a_bit,
    append,
    link_to_a_copy,
    link_to_itself,
    make_a_folder_of_it,
    make_a_pipe_of_it,
    make_a_file_of_its_folder,
]


def picture(root: Path) -> dict[str, tuple[int, int, int, int]]:
    """Return what is on disk below `runs`, with what any touch would change."""
    found = {}
    for path in sorted((root / "runs").rglob("*")):
        state = path.lstat()
        found[str(path)] = (state.st_ino, state.st_mode, state.st_size, state.st_mtime_ns)
    return found


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.timeout(120)
def test_a_known_run_with_a_damaged_file_is_corrupt_and_nothing_is_touched(
    root: Path, store: RunStore, damage: Callable[[Path], None]
) -> None:
    first = judged_record(saw(), 0)
    one(store, first)
    row = row_of(root, "run_1")
    damage(root / PATH)
    before = picture(root)
    later = [
        first,
        judged_record(saw(), 1),
        judged_record(saw(notes="changed"), 2),
        judged_record(saw(), 0, partition=5),
    ]
    for _ in range(2):
        result = store.commit(later)
        assert kinds(result) == ["ARTIFACT_CORRUPT"] * 4
        assert not any(outcome.may_cut or outcome.run for outcome in result.outcomes)
        assert picture(root) == before
    assert row_of(root, "run_1") == row
    # The runs beside it are stored all the same; another date, as the folder may be damaged.
    beside = judged_record(saw(run_id="run_2", created_at_utc="2026-01-01T00:00:00Z"), 3)
    assert word(one(store, beside)) == "persisted"


@pytest.mark.parametrize("fault", [errno.EACCES, errno.EIO])
def test_a_file_that_cannot_be_read_is_corrupt(root: Path, fault: int) -> None:
    calls = WatchedCalls()

    def refuse(name: str, arguments: tuple[Any, ...]) -> None:
        if name == "open_existing":
            raise OSError(fault, os.strerror(fault))

    with opened(root, calls) as store:
        one(store, judged_record(saw(), 0))
        calls.before = refuse
        assert word(one(store, judged_record(saw(), 0))) == "ARTIFACT_CORRUPT"


def test_a_file_that_is_put_back_is_the_run_again(root: Path, store: RunStore) -> None:
    record = judged_record(saw(), 0)
    one(store, record)
    flip_a_bit(root / PATH)
    assert word(one(store, record)) == "ARTIFACT_CORRUPT"
    (root / PATH).write_bytes(content(record))
    assert word(one(store, record)) == "persisted"


@pytest.mark.parametrize("found", [b"", b"other"])
def test_a_file_with_other_bytes_and_no_row_is_corrupt_and_gets_a_row_as_if_right(
    root: Path, store: RunStore, tmp_path: Path, found: bytes
) -> None:
    record = judged_record(saw(), 3)
    (root / PATH).parent.mkdir(parents=True)
    (root / PATH).write_bytes(found)
    for _ in range(2):
        assert word(one(store, record)) == "ARTIFACT_CORRUPT"
        assert files(root) == {PATH: found}
    with opened(tmp_path / "right") as right:
        one(right, record)
    assert rows(root) == rows(tmp_path / "right")


def test_a_file_with_the_same_bytes_and_no_row_is_persisted(root: Path, store: RunStore) -> None:
    record = judged_record(saw(), 3)
    (root / PATH).parent.mkdir(parents=True)
    (root / PATH).write_bytes(content(record))
    assert word(one(store, record)) == "persisted"


def test_a_blob_with_other_bytes_keeps_the_artifact_from_being_made(
    root: Path, store: RunStore
) -> None:
    name = sha256(b"part")
    blob = root / "attachments" / name[:2] / name[2:4] / name
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"traP")
    needs_it = judged_record(saw(attachments=[attachment(b"part")]), 0)
    beside = judged_record(saw(run_id="run_2"), 1)
    for _ in range(2):
        assert kinds(store.commit([needs_it, beside])) == ["ARTIFACT_CORRUPT", "persisted"]
        assert not (root / PATH).exists()
        assert blob.read_bytes() == b"traP"
    assert row_of(root, "run_1")["source_offset"] == 0


def test_a_blob_that_two_runs_name_is_written_once(root: Path, store: RunStore) -> None:
    parts = [attachment(b"part")]
    batch = [judged_record(saw(run_id=f"run_{n}", attachments=parts), n) for n in range(3)]
    assert kinds(store.commit(batch)) == ["persisted"] * 3
    assert len(files(root)) == 4
    assert len(rows(root)["attachments"]) == 3


# Drift: our program renders other bytes than it once did.


def pretend_other_bytes(root: Path) -> bytes:
    """Make file and row agree on bytes that the program would not render any more."""
    old = (root / PATH).read_bytes().replace(b'"mode":"saw"', b'"mode":"SAW"')
    (root / PATH).write_bytes(old)
    change_index(root, "UPDATE runs SET artifact_sha256 = ?, size_bytes = ?", sha256(old), len(old))
    return old


def test_drift_is_reported_beside_the_outcome_and_describes_the_stored_run(
    root: Path, store: RunStore
) -> None:
    record = judged_record(saw(), 0)
    one(store, record)
    old = pretend_other_bytes(root)
    outcome = one(store, record)
    assert (word(outcome), outcome.drifted, outcome.may_cut) == ("persisted", True, True)
    assert outcome.run is not None
    assert outcome.run.artifact_sha256 == sha256(old)
    later = one(store, judged_record(saw(), 1))
    assert (word(later), later.drifted, later.may_cut) == ("duplicate", True, True)
    assert files(root) == {PATH: old}


@pytest.mark.parametrize("stored_may_cut", [True, False])
@pytest.mark.parametrize("rendered_may_cut", [True, False])
def test_after_drift_a_machine_may_cut_only_if_both_say_so(
    root: Path, store: RunStore, stored_may_cut: bool, rendered_may_cut: bool
) -> None:
    record = judged_record(saw(), 0)
    one(store, record)
    pretend_other_bytes(root)
    if not stored_may_cut:
        change_index(root, "UPDATE runs SET status = 'BLOCKED'")
    if not rendered_may_cut:
        assert isinstance(record.verdict, JudgedRun)
        index_fields = structs.replace(record.verdict.built.index_fields, status="BLOCKED")
        verdict = structs.replace(
            record.verdict, built=structs.replace(record.verdict.built, index_fields=index_fields)
        )
        record = structs.replace(record, verdict=verdict)
    outcome = one(store, record)
    assert outcome.drifted
    assert outcome.may_cut is (stored_may_cut and rendered_may_cut)


def test_a_row_with_another_hash_than_its_file_is_corruption_and_no_drift(
    root: Path, store: RunStore
) -> None:
    record = judged_record(saw(), 0)
    one(store, record)
    change_index(root, "UPDATE runs SET artifact_sha256 = ?", "0" * 64)
    outcome = one(store, record)
    assert (word(outcome), outcome.drifted) == ("ARTIFACT_CORRUPT", False)


# The reject limit.


def good(first: int, count: int) -> list[JudgedRecord]:
    template = judged_record(saw(), 0)
    assert isinstance(template.verdict, JudgedRun)
    # The same run each time: duplicates are no failures, and cost no file.
    return [structs.replace(template, source=source(first + n)) for n in range(count)]


def bad(first: int, count: int) -> list[JudgedRecord]:
    return [tombstone(first + n) for n in range(count)]


def test_the_reject_limit_stops_before_its_batch_is_written(root: Path, store: RunStore) -> None:
    store.commit(bad(0, LEAST_SEEN - 1), LIMIT)
    before = rows(root)
    batch = [judged_record(saw(), 499), *bad(500, 1)]
    with pytest.raises(RejectLimitError, match=r"500 of the last 501 records.*--accept-rejects"):
        store.commit(batch, LIMIT)
    assert files(root) == {}
    assert rows(root) == before


def test_half_of_the_records_may_fail_and_no_more(store: RunStore) -> None:
    store.commit([*good(0, 500), *bad(500, 500)], LIMIT)
    with pytest.raises(RejectLimitError):
        store.commit(bad(1000, 1), LIMIT)


def test_incomplete_requests_count_as_failures_and_red_ones_do_not(
    root: Path, store: RunStore
) -> None:
    red = judged_record(red_request(run_id="red"))
    store.commit([structs.replace(red, source=source(n)) for n in range(600)], LIMIT)
    assert rows(root)["flood_windows"] == [
        {"group_id": "rmos.persist rmos.runs.requests/0", "verdicts": "0" * 600}
    ]
    poor = judged_record(incomplete_request(run_id="poor"))
    store.commit([structs.replace(poor, source=source(600 + n)) for n in range(400)], LIMIT)
    assert rows(root)["flood_windows"][0]["verdicts"] == "0" * 600 + "1" * 400


def test_a_restart_meets_the_reject_limit_again(root: Path) -> None:
    with opened(root) as store:
        store.commit(bad(0, LEAST_SEEN - 1), LIMIT)
    for _ in range(3):
        with opened(root) as store, pytest.raises(RejectLimitError):
            store.commit(bad(LEAST_SEEN - 1, 1), LIMIT)


def test_accepted_rejects_go_through_and_are_counted_down(root: Path, store: RunStore) -> None:
    store.commit(bad(0, LEAST_SEEN - 1), LIMIT)
    accepting = replace(LIMIT, accepted_rejects=7)
    with pytest.raises(RejectLimitError):
        store.commit(bad(499, 8), accepting)
    result = store.commit([*bad(499, 3), *good(502, 1), *bad(503, 4)], accepting)
    assert result.accepted_rejects == 7
    assert rows(root)["flood_windows"][0]["verdicts"] == "1" * 499 + "0"
    with pytest.raises(RejectLimitError):
        store.commit(bad(507, 1), LIMIT)


def test_fewer_failures_than_accepted_leave_the_rest_for_later(store: RunStore) -> None:
    accepting = replace(LIMIT, accepted_rejects=10)
    assert store.commit([*bad(0, 4), *good(4, 6)], accepting).accepted_rejects == 4


def test_offsets_that_were_judged_before_do_not_count_again(root: Path, store: RunStore) -> None:
    batch = [*good(0, 100), *bad(100, 90)]
    store.commit(batch, LIMIT)
    before = rows(root)["flood_windows"]
    for _ in range(10):
        assert store.commit(batch, LIMIT).accepted_rejects == 0
    assert rows(root)["flood_windows"] == before


def test_each_partition_has_its_own_offsets_that_were_judged(root: Path, store: RunStore) -> None:
    store.commit(bad(0, 5), LIMIT)
    store.commit([tombstone(n, partition=1) for n in range(5)], LIMIT)
    assert [row["verdicts"] for row in rows(root)["flood_windows"]] == ["1" * 5] * 2


def test_each_partition_has_its_own_window_and_all_share_what_is_accepted(
    root: Path, store: RunStore
) -> None:
    batches = [[tombstone(n, partition=p) for n in range(LEAST_SEEN - 1)] for p in range(2)]
    store.commit([*batches[0], *batches[1]], LIMIT)
    last = [tombstone(LEAST_SEEN - 1, partition=partition) for partition in range(2)]
    with pytest.raises(RejectLimitError, match=r"500 of the last 500 records of .*, partition 0, "):
        store.commit(last[:1], LIMIT)
    with pytest.raises(RejectLimitError, match=f"records of {TOPIC}, partition 1, are dead"):
        store.commit(last, replace(LIMIT, accepted_rejects=1))
    assert store.commit(last, replace(LIMIT, accepted_rejects=3)).accepted_rejects == 2


def test_without_a_guard_nothing_counts(root: Path, store: RunStore) -> None:
    assert len(store.commit(bad(0, 1500)).outcomes) == 1500
    assert rows(root)["flood_windows"] == []


def test_groups_have_windows_of_their_own(root: Path, store: RunStore) -> None:
    store.commit(bad(0, 400), LIMIT)
    store.commit(bad(400, 400), RejectLimit("rmos.migrate"))
    assert {row["group_id"]: len(row["verdicts"]) for row in rows(root)["flood_windows"]} == {
        "rmos.persist rmos.runs.requests/0": 400,
        "rmos.migrate rmos.runs.requests/0": 400,
    }


def test_the_window_keeps_the_last_verdicts_only(root: Path, store: RunStore) -> None:
    store.commit([*good(0, 1000), *bad(1000, 400)], LIMIT)
    assert rows(root)["flood_windows"][0]["verdicts"] == "0" * (WINDOW - 400) + "1" * 400


# Positions and epochs.


def test_positions_are_the_next_offset_of_each_partition_and_never_go_back(
    store: RunStore,
) -> None:
    store.commit([tombstone(5), tombstone(9), tombstone(3, partition=2)])
    assert store.index.positions(1) == {(TOPIC, 0): 10, (TOPIC, 2): 4}
    store.commit([tombstone(2), tombstone(4, partition=2)])
    assert store.index.positions(1) == {(TOPIC, 0): 10, (TOPIC, 2): 5}


def test_a_new_epoch_begins_at_its_own_offsets_and_knows_the_old_runs(root: Path) -> None:
    with opened(root) as store:
        assert word(one(store, judged_record(saw(), 7))) == "persisted"
    begin_epoch(root, cluster_id="cluster-2")
    with opened(root) as store:
        assert store.identity.epoch == 2
        assert store.index.positions(2) == {}
        assert word(one(store, judged_record(saw(), 0, epoch=2))) == "duplicate"
        assert store.index.positions(2) == {(TOPIC, 0): 1}
        assert store.index.positions(1) == {(TOPIC, 0): 8}


# Large batches and replay.


def test_a_batch_of_more_than_256_files_and_blobs_is_stored_whole(
    root: Path, store: RunStore
) -> None:
    before = open_descriptors()
    batch = [
        judged_record(saw(run_id=f"run_{n}", attachments=[attachment(b"blob %d" % n)]), n)
        for n in range(300)
    ]
    assert kinds(store.commit(batch)) == ["persisted"] * 300
    assert open_descriptors() == before
    found = files(root)
    assert len(found) == 600
    for record in batch:
        assert isinstance(record.verdict, JudgedRun)
        assert found[record.verdict.path] == content(record)
    assert (len(rows(root)["runs"]), len(rows(root)["attachments"])) == (300, 300)


def test_2500_records_in_one_batch_are_looked_up_and_stored(root: Path, store: RunStore) -> None:
    template = judged_record(red_request(run_id="run_0"))
    assert isinstance(template.verdict, JudgedRun)
    batch = [judged_record(saw(run_id=f"run_{n}"), n) for n in range(1100)]
    batch += [structs.replace(record, source=source(1100 + n)) for n, record in enumerate(batch)]
    batch += [tombstone(2200 + n) for n in range(300)]
    expected = ["persisted"] * 1100 + ["duplicate"] * 1100 + ["TOMBSTONE"] * 300
    assert kinds(store.commit(batch)) == expected
    assert kinds(store.commit(batch)) == expected
    assert store.index.count() == 1100


def test_a_batch_of_16_mebibytes_is_stored(root: Path, store: RunStore) -> None:
    batch = [
        judged_record(saw(run_id=f"run_{n}", meta={"text": chr(97 + n) * 4_100_000}), n)
        for n in range(4)
    ]
    assert kinds(store.commit(batch)) == ["persisted"] * 4
    assert sum(map(len, files(root).values())) > 16_000_000


def scene() -> list[list[JudgedRecord]]:
    """Return records of four partitions; a run_id is in one of them, as its key says."""
    partitions = []
    for partition in range(4):
        requests: list[dict[str, Any] | None] = []
        for n in range(6):
            run_id = f"run_{partition}_{n}"
            requests += [
                saw(run_id=run_id, attachments=[attachment(b"shared"), attachment(b"%d" % n)]),
                router_request(run_id=f"{run_id}_router"),
                saw(run_id=run_id, attachments=[attachment(b"shared"), attachment(b"%d" % n)]),
                None,
                red_request(run_id=f"{run_id}_red"),
                saw(run_id=run_id, notes="changed"),
                rosette_request(run_id=f"{run_id}_rosette"),
                incomplete_request(run_id=f"{run_id}_poor"),
            ]
        partitions.append(
            [
                tombstone(offset, partition=partition)
                if request is None
                else judged_record(request, offset, partition=partition)
                for offset, request in enumerate(requests)
            ]
        )
    return partitions


def interleaved(partitions: list[list[JudgedRecord]], chance: random.Random) -> list[JudgedRecord]:
    """Return all records in any order that keeps each partition's own."""
    rest = [list(partition) for partition in partitions]
    mixed = []
    while any(rest):
        partition = chance.choice([records for records in rest if records])
        mixed.append(partition.pop(0))
    return mixed


@pytest.mark.parametrize("seed", range(4))
def test_other_batches_and_another_order_of_partitions_make_the_same_store(
    root: Path, tmp_path: Path, seed: int
) -> None:
    partitions = scene()
    in_order = [record for partition in partitions for record in partition]
    with opened(root) as store:
        first = events(in_order, store.commit(in_order))
    chance = random.Random(seed)
    mixed = interleaved(partitions, chance)
    told: dict[Any, bytes] = {}
    with opened(tmp_path / "replayed") as store:
        while mixed:
            batch = [mixed.pop(0) for _ in range(min(len(mixed), chance.randint(1, 40)))]
            told |= zip(
                (record.source for record in batch),
                events(batch, store.commit(batch)),
                strict=True,
            )
    assert files(tmp_path / "replayed") == files(root)
    assert rows(tmp_path / "replayed") == rows(root)
    assert [told[record.source] for record in in_order] == first


# Opening.


def test_a_missing_index_over_runs_is_refused(root: Path) -> None:
    with opened(root) as store:
        one(store, judged_record(saw()))
    (root / "index.sqlite3").unlink()
    with pytest.raises(StoreNotReadyError, match="run rmos index rebuild"), opened(root):
        pass
    assert not (root / "index.sqlite3").exists()


@pytest.mark.parametrize("found", [b"", b"no index of ours" * 300])
def test_an_emptied_or_damaged_index_over_runs_is_refused(root: Path, found: bytes) -> None:
    with opened(root) as store:
        one(store, judged_record(saw()))
    (root / "index.sqlite3").write_bytes(found)
    with pytest.raises(StoreNotReadyError, match="run rmos index rebuild"), opened(root):
        pass


def test_an_index_with_damaged_pages_is_refused_and_says_what_to_do(root: Path) -> None:
    with opened(root) as store:
        one(store, judged_record(saw()))
    path = root / "index.sqlite3"
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xa5" * (len(whole) - 4096))
    with pytest.raises(StoreError, match=r"malformed.*rmos index rebuild"), opened(root) as store:
        one(store, judged_record(saw(run_id="run_2"), 1))
    assert list(files(root)) == [PATH]


def test_a_store_without_runs_may_lose_its_index(root: Path) -> None:
    with opened(root):
        pass
    (root / "index.sqlite3").unlink()
    with opened(root) as store:
        assert store.index.count() == 0


def test_an_index_that_is_replaced_under_a_running_worker_is_not_written_to(root: Path) -> None:
    with opened(root) as store:
        one(store, judged_record(saw(), 0))
        rebuilt = root / "index.sqlite3.rebuilt"
        rebuilt.write_bytes((root / "index.sqlite3").read_bytes())
        rebuilt.replace(root / "index.sqlite3")
        with pytest.raises(StoreError, match=r"rebuilt or removed meanwhile.*start again"):
            one(store, judged_record(saw(run_id="run_2"), 1))
    assert list(files(root)) == [PATH]


def test_an_index_that_is_removed_under_a_running_worker_is_missed(root: Path) -> None:
    with opened(root) as store:
        (root / "index.sqlite3").unlink()
        with pytest.raises(StoreError, match="rebuilt or removed meanwhile"):
            one(store, judged_record(saw()))
    assert files(root) == {}


def test_leftover_temporary_names_are_gone_after_opening(root: Path) -> None:
    with opened(root):
        pass
    (root / f".{'0' * 32}.tmp").write_bytes(b"half")
    with opened(root):
        assert files(root) == {}


def test_opening_that_fails_leaves_nothing_open(root: Path) -> None:
    with opened(root):
        pass
    (root / "index.sqlite3").write_bytes(b"no index" * 1000)
    before = open_descriptors()
    for _ in range(3):
        with pytest.raises(StoreNotReadyError):
            RunStore(open_store_to_write(root))
    assert open_descriptors() == before


def test_a_data_folder_may_have_any_name(tmp_path: Path) -> None:
    unexpected = tmp_path / "50% off? #1 & more=ü"
    with opened(unexpected) as store:
        assert word(one(store, judged_record(saw()))) == "persisted"
    assert (unexpected / "index.sqlite3").exists()
    assert [path.name for path in tmp_path.iterdir()] == [unexpected.name]


def mixed_batch() -> list[JudgedRecord]:
    """Return every kind of record, with blobs, a duplicate and a conflict."""
    part = attachment(b"part")
    requests = [
        saw(attachments=[part]),
        red_request(run_id="run_2"),
        incomplete_request(run_id="run_3"),
        saw(attachments=[part]),
        saw(mode="other"),
    ]
    return [*(judged_record(each, offset) for offset, each in enumerate(requests)), tombstone(9)]


def test_a_batch_that_was_written_ahead_is_stored_as_any_other(root: Path, tmp_path: Path) -> None:
    batch = mixed_batch()
    with opened(tmp_path / "plain") as plain:
        wanted = plain.commit(batch)
    calls = WatchedCalls()
    with opened(root, calls) as store:
        names: list[str] = []
        calls.before = lambda name, _arguments: names.append(name)
        written = store.write(batch)
        assert files(root) == {}
        ahead, names[:] = names.count("write"), []
        assert store.commit(batch, written=written) == wanted
        assert ahead == len(files(root)) == len(files(tmp_path / "plain"))
        assert "write" not in names
        # A batch that is delivered again needs nothing of what is written ahead.
        assert kinds(store.commit(batch, written=store.write(batch))) == kinds(wanted)
    assert files(root) == files(tmp_path / "plain")
    assert rows(root) == rows(tmp_path / "plain")


def test_nothing_of_a_batch_is_visible_or_open_where_its_commit_fails(root: Path) -> None:
    with opened(root) as store:
        store.commit([tombstone(offset) for offset in range(400)], LIMIT)
        before = files(root)
        open_before = open_descriptors()
        batch = [*(tombstone(offset) for offset in range(400, 600)), judged_record(saw(), 600)]
        written = store.write(batch)
        assert open_descriptors() > open_before
        with pytest.raises(RejectLimitError):
            store.commit(batch, LIMIT, written)
        assert open_descriptors() == open_before
        assert files(root) == before
