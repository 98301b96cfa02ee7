"""A store with a ledger: a leaf for every consumed offset, in one transaction with the rest."""

import contextlib
import errno
import gc
import itertools
import os
import random
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.advisories.verdict import judge_advisory_record
from pipeline.core.envelope import Rejected
from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.record import RecordId, RecordSource
from pipeline.errors import IntegrityError, StoreError
from pipeline.ledger.leaf import LedgerLeaf, parse_leaf
from pipeline.ledger.log_id import LogId
from pipeline.ledger.writer import Ledger
from pipeline.storage.advisory_store import AdvisoryRecord, AdvisoryStore
from pipeline.storage.batch_plan import JudgedRecord
from pipeline.storage.index.queries import IndexTransaction
from pipeline.storage.run_store import RunRecord, RunStore
from pipeline.storage.store import open_store_to_write
from tests.builders import advisory_request, record, red_request, run_request
from tests.ledger.ledgers import (
    SIGNER,
    STORE_ID,
    WatchedLogCalls,
    check_whole,
    damage,
    ledger,
    on_disk,
)
from tests.ledger.memory_logs import MemoryLogs
from tests.storage.memory_files import MemoryFiles
from tests.storage.stores import (
    TIMESTAMP_MS,
    change_index,
    files,
    in_child,
    judged_record,
    kinds,
    make_store,
    opened,
    rows,
    source,
    tombstone,
)

ADVISORIES = "rmos.advisories.requests"


def store_batch(root: Path, records: Sequence[RunRecord]) -> list[str]:
    """Store a batch as a process that has just started; return what became of each record."""
    with opened(root, ledger=ledger(root)) as store:
        return kinds(store.commit(records))


def leaves_of(root: Path, log: LogId) -> list[LedgerLeaf]:
    return [parse_leaf(entry) for entry in check_whole(root, log).entries()]


def run_log(partition: int = 0) -> LogId:
    return LogId(1, source(0).id.topic, partition)


def test_every_offset_has_a_leaf_that_says_what_became_of_it(tmp_path: Path) -> None:
    records = [
        judged_record(run_request(run_id="run_a"), 3),
        judged_record(run_request(run_id="run_a"), 4),
        judged_record(run_request(run_id="run_a", notes="changed"), 5),
        tombstone(9),
        judged_record(red_request(run_id="run_b"), 10),
        judged_record(run_request(run_id="run_c"), 0, partition=7),
    ]
    assert store_batch(tmp_path, records) == [
        "persisted",
        "duplicate",
        "RUN_CONFLICT",
        "TOMBSTONE",
        "persisted",
        "persisted",
    ]
    leaves = leaves_of(tmp_path, run_log())
    assert [(leaf.offset, leaf.kind) for leaf in leaves] == [
        (3, "run"),
        (4, "duplicate"),
        (5, "conflict"),
        (9, "rejected"),
        (10, "run"),
    ]
    (artifact,) = [row for row in rows(tmp_path)["runs"] if row["run_id"] == "run_b"]
    assert (leaves[4].path, leaves[4].sha256, leaves[4].size_bytes) == (
        artifact["artifact_path"],
        artifact["artifact_sha256"],
        artifact["size_bytes"],
    )
    assert leaves[4].timestamp_ms == TIMESTAMP_MS
    assert leaves[4].body_sha256 == records[4].body_sha256
    assert [leaf.run_id for leaf in leaves_of(tmp_path, run_log(7))] == ["run_c"]


def test_a_batch_delivered_again_adds_no_leaf(tmp_path: Path) -> None:
    records = [judged_record(run_request(run_id=f"run_{n}"), n) for n in range(5)]
    assert store_batch(tmp_path, records) == ["persisted"] * 5
    before = on_disk(tmp_path)
    assert store_batch(tmp_path, records[2:]) == ["persisted"] * 3
    assert on_disk(tmp_path) == before


def test_a_damaged_file_changes_no_leaf(tmp_path: Path) -> None:
    """The dead letter says ARTIFACT_CORRUPT; a replay into an empty store makes the same leaf."""
    damaged, clean = tmp_path / "damaged", tmp_path / "clean"
    for root in (damaged, clean):
        root.mkdir()
        store_batch(root, [judged_record(run_request(run_id="run_a"), 0)])
    damage(damaged / "runs/2025-12-18/run_a.json")
    again = [judged_record(run_request(run_id="run_a"), 1)]
    assert store_batch(damaged, again) == ["ARTIFACT_CORRUPT"]
    assert store_batch(clean, again) == ["duplicate"]
    assert on_disk(damaged) == on_disk(clean)


def test_an_unexpected_file_under_the_name_of_a_new_run_changes_no_leaf(tmp_path: Path) -> None:
    unexpected, clean = tmp_path / "unexpected", tmp_path / "clean"
    for root in (unexpected, clean):
        make_store(root)
    (unexpected / "runs/2025-12-18").mkdir(parents=True)
    (unexpected / "runs/2025-12-18/run_a.json").write_bytes(b"{}")
    # A store with files and no index is refused; this file came after the index.
    first = [judged_record(run_request(run_id="run_a"), 0)]
    with opened(clean, ledger=ledger(clean)) as store:
        assert kinds(store.commit(first)) == ["persisted"]
    (unexpected / "runs").rename(unexpected / "aside")
    with opened(unexpected, ledger=ledger(unexpected)) as store:
        (unexpected / "aside").rename(unexpected / "runs")
        assert kinds(store.commit(first)) == ["ARTIFACT_CORRUPT"]
    assert on_disk(unexpected) == on_disk(clean)


def test_an_internal_error_stands_whatever_a_corrected_program_says(tmp_path: Path) -> None:
    good = judged_record(run_request(run_id="run_a"), 0)
    failed: RunRecord = JudgedRecord(
        good.source, Rejected("INTERNAL_ERROR", "text"), good.timestamp_ms, good.body_sha256
    )
    assert store_batch(tmp_path, [failed]) == ["INTERNAL_ERROR"]
    before = on_disk(tmp_path)
    assert store_batch(tmp_path, [good]) == ["INTERNAL_ERROR"]
    assert on_disk(tmp_path) == before
    assert not (tmp_path / "runs").exists()
    redriven = judged_record(run_request(run_id="run_a"), 1)
    assert store_batch(tmp_path, [redriven]) == ["persisted"]


@pytest.mark.parametrize("offset", [1, 3], ids=["next", "behind a gap"])
def test_an_internal_error_that_another_host_died_of_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offset: int
) -> None:
    """It died before COMMIT, and who goes on knows the log from before."""
    make_store(tmp_path)
    files_ = MemoryFiles()
    logs = MemoryLogs(files_)

    def host() -> RunStore:
        store = replace(open_store_to_write(tmp_path), files=files_, logs=logs)
        return RunStore(store, ledger=Ledger(files_, logs, STORE_ID, [SIGNER]))

    good = judged_record(run_request(run_id="run_a"), offset)
    failed: RunRecord = JudgedRecord(
        good.source, Rejected("INTERNAL_ERROR", "text"), good.timestamp_ms, good.body_sha256
    )
    with contextlib.closing(host()) as first, contextlib.closing(host()) as second:
        first.commit([tombstone(0)])
        assert kinds(second.commit([failed])) == ["INTERNAL_ERROR"]
        change_index(tmp_path, "UPDATE positions SET next_offset = 1")
        # As a new connection to a database that fails over.
        monkeypatch.setattr(IndexTransaction, "may_lack_rows", offset == 1)
        assert kinds(first.commit([good])) == ["INTERNAL_ERROR"]
        assert first.index.positions(1) == {(run_log().topic, 0): offset + 1}
    assert not any(path.startswith("runs/") for path in files_.contents)


def test_another_record_at_an_offset_that_has_a_leaf_is_refused(tmp_path: Path) -> None:
    store_batch(tmp_path, [judged_record(run_request(run_id="run_a"), 0)])
    other = judged_record(run_request(run_id="run_b"), 0)
    with pytest.raises(IntegrityError, match=r"expected leaf 0, of offset 0, to be .*run_b"):
        store_batch(tmp_path, [other])
    assert [row["run_id"] for row in rows(tmp_path)["runs"]] == ["run_a"]
    assert not (tmp_path / "runs/2025-12-18/run_b.json").exists()


def test_a_store_that_loses_its_rows_after_the_checkpoint_adds_the_rows_alone(
    tmp_path: Path,
) -> None:
    """As where the process dies between the checkpoint and the commit of the index."""
    batch = [judged_record(run_request(run_id=f"run_{n}"), n) for n in range(3)]
    with opened(tmp_path, ledger=ledger(tmp_path)) as store:

        def failing(*_: Any) -> Any:
            message = "rows refused"
            raise OSError(errno.EIO, message)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("pipeline.storage.index.queries.IndexTransaction.advance", failing)
            with pytest.raises(StoreError):
                store.commit(batch)
    assert len(leaves_of(tmp_path, run_log())) == 3
    assert rows(tmp_path)["runs"] == []
    before = on_disk(tmp_path)
    shutil.rmtree(tmp_path / "runs")
    assert store_batch(tmp_path, batch) == ["persisted"] * 3
    assert on_disk(tmp_path) == before
    assert len(rows(tmp_path)["runs"]) == 3


def advisory(offset: int, **changes: Any) -> AdvisoryRecord:
    key, value = record(advisory_request(**changes))
    place = RecordSource(1, RecordId(ADVISORIES, 0, offset))
    return JudgedRecord.of(place, judge_advisory_record(key, value), value, TIMESTAMP_MS)


def store_advisories(
    root: Path, records: Sequence[AdvisoryRecord], *, again: bool = False
) -> list[str]:
    store = AdvisoryStore(open_store_to_write(root), ledger=ledger(root))
    try:
        return kinds(store.retry_links(records) if again else store.commit(records))
    finally:
        store.close()


def test_an_advisory_has_the_same_leaf_before_and_after_its_run(tmp_path: Path) -> None:
    """And none for being linked later: its record is none that is consumed again."""
    early, late = tmp_path / "early", tmp_path / "late"
    run = [judged_record(run_request(run_id="run_a"), 0)]
    wanted = [
        advisory(0, run_id="run_a", advisory_id="adv_1"),
        advisory(1, run_id="run_a", advisory_id="adv_1"),
        advisory(2, run_id="run_a", advisory_id="adv_1", content_text="other"),
    ]
    for root in (early, late):
        make_store(root)
    assert store_advisories(early, wanted) == ["waiting", "duplicate", "ADVISORY_CONFLICT"]
    assert store_batch(early, run) == ["persisted"]
    assert store_advisories(early, wanted[:1], again=True) == ["linked"]
    assert store_batch(late, run) == ["persisted"]
    assert store_advisories(late, wanted) == ["linked", "duplicate", "ADVISORY_CONFLICT"]
    assert on_disk(early) == on_disk(late)
    assert files(early) == files(late)
    kinds_of_leaves = [leaf.kind for leaf in leaves_of(early, LogId(1, ADVISORIES, 0))]
    assert kinds_of_leaves == ["advisory", "duplicate", "conflict"]


def topic_of_records(seed: int) -> list[list[RunRecord]]:
    """Return the records of four partitions: runs, duplicates, conflicts, rejects, gaps."""
    chance = random.Random(seed)
    partitions = []
    for partition in range(4):
        offset, records = 0, []
        for number in range(300):
            offset += chance.choice([1, 1, 1, 1, 3])
            name = f"run_{partition}_{number - chance.choice([0, 0, 0, 1])}"
            changes = chance.choice([{}, {}, {}, {"notes": "changed"}])
            request = run_request(run_id=name, **changes)
            records.append(
                tombstone(offset, partition=partition)
                if chance.random() < 0.1
                else judged_record(request, offset, partition=partition)
            )
        partitions.append(records)
    return partitions


@pytest.mark.parametrize("seed", [1, 2])
def test_other_batches_and_interleavings_make_the_same_store(tmp_path: Path, seed: int) -> None:
    """Batches of 1 to 400 records, workers that come and go, records delivered again."""
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    for root in (whole, pieces):
        root.mkdir()
    partitions = topic_of_records(seed)
    store_batch(whole, [each for records in partitions for each in records])
    chance = random.Random(seed)
    workers = [opened(pieces, ledger=ledger(pieces)) for _ in range(3)]
    stores = [worker.__enter__() for worker in workers]
    done = [0] * len(partitions)
    while any(place < len(records) for place, records in zip(done, partitions, strict=True)):
        batch: list[RunRecord] = []
        for number in chance.sample(range(4), chance.randint(1, 4)):
            start = max(0, done[number] - chance.choice([0, 0, 5]))
            end = done[number] + chance.choice([1, 7, 100])
            batch += partitions[number][start:end]
            done[number] = min(end, len(partitions[number]))
        if batch:
            chance.choice(stores).commit(batch)
    for worker in workers:
        worker.__exit__(None, None, None)
    assert on_disk(pieces) == on_disk(whole)
    assert files(pieces) == files(whole)
    for partition in range(4):
        check_whole(whole, run_log(partition))


BATCHES = [
    [judged_record(run_request(run_id="run_a"), 0), tombstone(1)],
    [
        judged_record(red_request(run_id="run_b"), 2),
        judged_record(run_request(run_id="run_a"), 3),
        judged_record(run_request(run_id="run_c"), 0, partition=1),
    ],
]


@pytest.fixture
def new_root(tmp_path: Path) -> Callable[[], Path]:
    """Give stores with the first batch, each a copy of one."""
    template = tmp_path / "template"
    template.mkdir()
    store_batch(template, BATCHES[0])
    numbers = itertools.count()
    return lambda: shutil.copytree(template, tmp_path / f"store_{next(numbers)}")


def expected_store(root: Path) -> dict[str, Any]:
    for batch in BATCHES[1:]:
        store_batch(root, batch)
    return files(root) | {"rows": rows(root)["runs"]}


def calls_of_second_batch(root: Path) -> int:
    calls = WatchedLogCalls()
    made: list[str] = []
    with opened(root, calls, ledger=ledger(root, calls)) as store:
        calls.before = lambda name, arguments: made.append(name)
        store.commit(BATCHES[1])
        calls.before = None
    return len(made)


def check_no_checkpoint_over_missing_bytes(root: Path) -> None:
    """Check that every leaf of every log stands, and that the file of each `run` leaf is there."""
    for partition in (0, 1):
        if not (root / run_log(partition).path / "checkpoint").exists():
            continue
        for leaf in leaves_of(root, run_log(partition)):
            if leaf.kind == "run":
                content = (root / str(leaf.path)).read_bytes()
                assert (len(content), sha256_of_bytes(content)) == (leaf.size_bytes, leaf.sha256)


def test_a_fault_at_any_call_leaves_no_checkpoint_over_missing_bytes(
    new_root: Callable[[], Path],
) -> None:
    expected = expected_store(new_root())
    total = calls_of_second_batch(new_root())
    for nth in range(total):
        root = new_root()
        calls = WatchedLogCalls()
        seen = 0

        def fail(name: str, arguments: tuple[Any, ...], nth: int = nth) -> None:
            nonlocal seen
            seen += 1
            if seen == nth + 1:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        with opened(root, calls, ledger=ledger(root, calls)) as store:
            calls.before = fail
            # A file that cannot be read counts as damaged; every other fault stops the worker.
            with contextlib.suppress(StoreError):
                store.commit(BATCHES[1])
            calls.before = None
        check_no_checkpoint_over_missing_bytes(root)
        for batch in BATCHES:
            store_batch(root, batch)
        assert files(root) | {"rows": rows(root)["runs"]} == expected, nth
        shutil.rmtree(root)


@pytest.mark.slow
def test_killed_at_any_call_what_was_acknowledged_has_its_leaves(
    new_root: Callable[[], Path],
) -> None:
    expected = expected_store(new_root())
    total = calls_of_second_batch(new_root())
    for nth in range(total):
        root = new_root()

        def work(root: Path = root, nth: int = nth) -> bytes:
            calls = WatchedLogCalls()
            made = 0

            def kill(name: str, arguments: tuple[Any, ...]) -> None:
                nonlocal made
                if made == nth:
                    os.kill(os.getpid(), signal.SIGKILL)
                made += 1

            with opened(root, calls, ledger=ledger(root, calls)) as store:
                calls.before = kill
                store.commit(BATCHES[1])
            return b"acknowledged"

        status, _ = in_child(work)
        assert os.WIFSIGNALED(status), nth
        check_no_checkpoint_over_missing_bytes(root)
        for batch in BATCHES:
            store_batch(root, batch)
        assert files(root) | {"rows": rows(root)["runs"]} == expected, nth
        shutil.rmtree(root)


def test_nothing_that_a_batch_makes_outlives_it(tmp_path: Path) -> None:
    """A worker hardly ever collects cycles: memory grew by readers of logs that were in one."""
    make_store(tmp_path)
    with opened(tmp_path, ledger=ledger(tmp_path)) as store:
        store.commit([judged_record(run_request(run_id="run_0"), 0)])
        gc.collect()
        gc.disable()
        try:
            before = living()
            for offset in range(1, 101):
                request = run_request(run_id=f"run_{offset}")
                with store.write(records := [judged_record(request, offset)]) as written:
                    assert kinds(store.commit(records, None, written)) == ["persisted"]
            del request, records, written
            assert living() - before == Counter()
        finally:
            gc.enable()


def living() -> Counter[str]:
    """Count the objects of ours, by type."""
    types = map(type, gc.get_objects())
    return Counter(each.__name__ for each in types if each.__module__.startswith("pipeline."))
