"""An index that has lost rows follows the ledger of its store before it goes on."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.advisories.verdict import judge_advisory_record
from pipeline.core.record import RecordId, RecordSource
from pipeline.core.store.log_store import CHECKPOINT_FILE
from pipeline.disk.durable_files import DurableFiles
from pipeline.disk.log_store import DiskLogs
from pipeline.disk.store_identity import begin_epoch
from pipeline.errors import IntegrityError
from pipeline.ledger.writer import Ledger
from pipeline.storage.advisory_store import AdvisoryRecord, AdvisoryStore
from pipeline.storage.batch_plan import JudgedRecord
from pipeline.storage.run_store import RunRecord
from pipeline.storage.store import open_store_to_write
from tests.builders import (
    advisory_request,
    attachment,
    incomplete_request,
    record,
    red_request,
    run_request,
)
from tests.ledger.ledgers import LOG, SIGNER, STORE_ID, damage, ledger, on_disk
from tests.storage.stores import (
    TIMESTAMP_MS,
    TOPIC,
    change_index,
    files,
    judged_record,
    kinds,
    opened,
    rows,
)

PLACE = (TOPIC, 0)
RUN_TABLES = ("attachments", "withheld_blobs", "withheld_payloads", "runs")


class CountedLogs(DiskLogs):
    """Logs that note what is read of them, unless they are locked."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads: list[str] = []

    def tiles(self, paths: Iterable[str]) -> dict[str, bytes]:
        wanted = list(paths)
        self.reads += wanted
        return super().tiles(wanted)


def counted(root: Path) -> tuple[CountedLogs, Ledger]:
    logs = CountedLogs(root)
    return logs, Ledger(DurableFiles(root), logs, STORE_ID, [SIGNER])


def run(offset: int, *, epoch: int = 1) -> RunRecord:
    return judged_record(run_request(run_id=f"run_{offset}"), offset, epoch=epoch)


def advisory(offset: int) -> AdvisoryRecord:
    key, value = record(advisory_request(run_id="run_0", advisory_id=f"adv_{offset}"))
    place = RecordSource(1, RecordId("rmos.advisories.requests", 0, offset))
    return JudgedRecord.of(place, judge_advisory_record(key, value), value, TIMESTAMP_MS)


def lose(root: Path, position: int) -> None:
    """Let the index be as before the run records from `position` on."""
    for table in RUN_TABLES:
        lost = "SELECT run_id FROM runs WHERE source_offset >= ?"
        change_index(root, f"DELETE FROM {table} WHERE run_id IN ({lost})", position)
    change_index(root, "UPDATE positions SET next_offset = ? WHERE topic = ?", position, TOPIC)


def with_attachment(offset: int, **changes: Any) -> RunRecord:
    return judged_record(run_request(attachments=[attachment()], **changes), offset)


@pytest.mark.parametrize("position", [0, 2])
def test_rows_that_are_lost_are_made_again_before_a_batch(tmp_path: Path, position: int) -> None:
    first = [
        with_attachment(0, run_id="run_a"),
        judged_record(red_request(run_id="run_b"), 1),
        judged_record(incomplete_request(run_id="run_c"), 2),
        judged_record(run_request(run_id="run_a"), 4),
    ]
    second = [
        with_attachment(5, run_id="run_a"),
        judged_record(run_request(run_id="run_b"), 6),
        run(7),
    ]
    lost, whole = tmp_path / "lost", tmp_path / "whole"
    found = {}
    for root in (lost, whole):
        root.mkdir()
        with opened(root, ledger=ledger(root)) as store:
            store.commit(first)
            if root == lost:
                # While the worker runs: it does not start again.
                lose(root, position)
            found[root] = kinds(store.commit(second))
    assert found[lost] == found[whole] == ["duplicate", "RUN_CONFLICT", "persisted"]
    assert rows(lost) == rows(whole)
    assert files(lost) == files(whole)


def test_advisories_that_are_lost_are_made_again_of_their_links(tmp_path: Path) -> None:
    with opened(tmp_path, ledger=ledger(tmp_path)) as store:
        store.commit([run(0)])
    advisories = AdvisoryStore(open_store_to_write(tmp_path), ledger=ledger(tmp_path))
    try:
        advisories.commit([advisory(0), advisory(1)])
        before = rows(tmp_path)["advisories"]
        change_index(tmp_path, "DELETE FROM advisories")
        change_index(tmp_path, "DELETE FROM positions WHERE topic LIKE '%advisories%'")
        advisories.commit([advisory(2)])
    finally:
        advisories.close()
    assert rows(tmp_path)["advisories"][:2] == before


def test_a_file_that_is_not_what_its_leaf_says_makes_no_row(tmp_path: Path) -> None:
    with opened(tmp_path, ledger=ledger(tmp_path)) as store:
        store.commit([run(n) for n in range(3)])
        lose(tmp_path, 1)
        damage(tmp_path / "runs/2025-12-18/run_1.json")
        with pytest.raises(IntegrityError, match=r"run_1\.json to have SHA-256"):
            store.commit([run(3)])
    assert [row["run_id"] for row in rows(tmp_path)["runs"]] == ["run_0"]


def test_a_gap_of_offsets_searches_no_log(tmp_path: Path) -> None:
    """As each mark of a producer's transaction makes one."""
    logs, its_ledger = counted(tmp_path)
    with opened(tmp_path, ledger=its_ledger) as store:
        store.commit([run(n) for n in range(20)])
        for offset in (30, 40):
            logs.reads.clear()
            assert kinds(store.commit([run(offset)])) == ["persisted"]
            # To follow the log, and for the leaves of the batch.
            assert logs.reads == [f"{LOG.path}/{CHECKPOINT_FILE}"] * 2


def test_an_index_ahead_of_a_log_follows_nothing(tmp_path: Path) -> None:
    """As after a measurement without a ledger, or where an operator went past a loss."""
    logs, its_ledger = counted(tmp_path)
    with opened(tmp_path, ledger=its_ledger) as store:
        store.commit([run(0)])
        change_index(tmp_path, "UPDATE positions SET next_offset = 50")
        for offset, position in ((7, 50), (60, 61)):
            logs.reads.clear()
            assert kinds(store.commit([run(offset)])) == ["persisted"]
            assert {path.rpartition("/")[2] for path in logs.reads} == {CHECKPOINT_FILE}
            assert store.index.positions(1) == {PLACE: position}
        # Nor does a start that follows the log move it back.
        change_index(tmp_path, "UPDATE positions SET next_offset = 90")
        store.follow_ledger({PLACE: 100})
        assert store.index.positions(1) == {PLACE: 90}


def test_the_log_of_an_earlier_epoch_is_not_followed(tmp_path: Path) -> None:
    with opened(tmp_path, ledger=ledger(tmp_path)) as store:
        store.commit([run(n) for n in range(3)])
    begin_epoch(tmp_path, cluster_id="cluster-2")
    logs, its_ledger = counted(tmp_path)
    before = on_disk(tmp_path)
    with opened(tmp_path, ledger=its_ledger) as store:
        assert kinds(store.commit([run(5, epoch=2)])) == ["persisted"]
        assert store.index.positions(2) == {PLACE: 6}
    assert not any(path.startswith(f"{LOG.path}/") for path in logs.reads)
    assert {path: on_disk(tmp_path)[path] for path in before} == before


def test_without_a_ledger_there_is_nothing_to_follow(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.commit([run(0)])
        lose(tmp_path, 0)
        store.follow_ledger({PLACE: 1})
        assert store.index.count() == 0
        assert kinds(store.commit([run(9)])) == ["persisted"]
        assert store.index.positions(1) == {PLACE: 10}
