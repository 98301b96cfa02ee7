"""Who was first: the leaf says, else the row, else what was read before; never the range alone."""

from typing import Any

import pytest

from pipeline.core.envelope import Rejected
from pipeline.core.runs.outcome import StoredRun, stored_run
from pipeline.ledger.leaf import LedgerLeaf
from pipeline.recovery.replay.history import LeafCursor, PartitionHistory
from pipeline.storage.batch_plan import JudgedRecord
from tests.builders import run_request
from tests.storage.stores import TOPIC, judged_record, source, tombstone


class Leaves(LeafCursor):
    """Leaves by offset, for what a history asks."""

    def __init__(self, *kinds: tuple[int, str]) -> None:
        self.without_record = []
        self._kinds = dict(kinds)

    def take(self, offset: int) -> LedgerLeaf | None:
        kind = self._kinds.get(offset)
        code = "INTERNAL_ERROR" if kind == "rejected" else None
        return None if kind is None else LedgerLeaf(kind, TOPIC, 0, offset, 0, "0" * 64, code)  # type: ignore[arg-type]


def asked(offset: int, run_id: str = "run_a", **changes: Any) -> JudgedRecord[Any]:
    return judged_record(run_request(run_id=run_id, **changes), offset)


def row_of(record: JudgedRecord[Any], offset: int) -> StoredRun:
    return stored_run(record.verdict, source(offset))


def firsts(history: PartitionHistory, *records: JudgedRecord[Any]) -> list[int]:
    observed = history.observe(records)
    return [each.record.source.id.offset for each in observed if each.was_first(None)]


def test_without_leaves_and_rows_the_first_that_was_read_is_first() -> None:
    history = PartitionHistory(0, Leaves(), remembers=True)
    assert firsts(history, asked(0), asked(1), asked(2, "run_b"), tombstone(3)) == [0, 2]
    assert firsts(history, asked(4), asked(5, "run_c")) == [5]


def test_a_range_from_the_middle_remembers_what_lies_before_it() -> None:
    history = PartitionHistory(2, Leaves(), remembers=True)
    records = [asked(0), tombstone(1), asked(2, notes="changed"), asked(3, "run_b")]
    assert [each.record.source.id.offset for each in history.observe(records)] == [2, 3]
    history = PartitionHistory(2, Leaves(), remembers=True)
    assert firsts(history, *records) == [3]


def test_a_leaf_outweighs_what_was_read_and_what_the_row_says() -> None:
    history = PartitionHistory(5, Leaves((5, "conflict"), (6, "run")), remembers=False)
    later, first = history.observe([asked(5), asked(6, "run_b")])
    assert not later.was_first(row_of(asked(5), 5))
    assert first.was_first(row_of(asked(6, "run_b"), 2))


@pytest.mark.parametrize(("made_at", "expected"), [(1, True), (0, False), (7, False)])
def test_without_a_leaf_the_row_decides(made_at: int, expected: bool) -> None:
    """Only the index knows of records in another partition or epoch."""
    (observed,) = PartitionHistory(0, Leaves(), remembers=True).observe([asked(1)])
    assert observed.was_first(row_of(asked(1), made_at)) is expected


def test_what_once_was_an_internal_error_makes_nothing() -> None:
    history = PartitionHistory(0, Leaves((0, "rejected")), remembers=True)
    failed, redriven = history.observe([asked(0), asked(1)])
    assert failed.is_internal_error
    assert isinstance(failed.record.verdict, Rejected)
    assert not failed.was_first(None)
    # It asked for nothing, so the same request at a later offset is the first.
    assert redriven.was_first(None)
