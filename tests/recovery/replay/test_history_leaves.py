"""Leaves beside records: each is met once, gaps and leaves without a record are found."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.ledger.reader import LogReader
from pipeline.recovery.replay.history import LeafCursor, covers
from tests.ledger.ledgers import LOG, leaf, ledger

OFFSETS = [*range(300), *range(303, 310), 400]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> LogReader:
    root = tmp_path_factory.mktemp("ledger")
    ledger(root).append_all({LOG: [leaf(offset) for offset in OFFSETS]})
    opened = ledger(root).reader(LOG)
    assert opened is not None
    return opened


@given(data=st.data())
def test_every_leaf_of_a_range_is_taken_or_left_over(
    reader: LogReader, data: st.DataObject
) -> None:
    begin = data.draw(st.integers(0, 410))
    end = data.draw(st.integers(begin, 411))
    records = sorted(data.draw(st.sets(st.integers(begin, 410))))
    records = [offset for offset in records if offset < end]
    cursor = LeafCursor(reader, begin, end)
    taken = [cursor.take(offset) for offset in records]
    cursor.finish()
    assert [each and each.offset for each in taken] == [
        offset if offset in OFFSETS else None for offset in records
    ]
    within = {offset for offset in OFFSETS if begin <= offset < end}
    assert {each.offset for each in cursor.without_record} == within - set(records)


@pytest.mark.parametrize(
    ("begin", "end", "covered"),
    [
        *((0, 300, True), (299, 301, False), (303, 310, True), (310, 311, False)),
        *((400, 401, True), (400, 402, False), (5, 5, True), (500, 500, True)),
    ],
)
def test_a_range_is_covered_where_every_offset_has_a_leaf(
    reader: LogReader, begin: int, end: int, covered: bool
) -> None:
    assert covers(reader, begin, end) is covered


def test_a_log_that_does_not_exist_covers_nothing(tmp_path: Path) -> None:
    missing = ledger(tmp_path).reader(LOG)
    assert missing is None
    assert covers(missing, 4, 4)
    assert not covers(missing, 0, 1)
    cursor = LeafCursor(missing, 0, 9)
    assert cursor.take(3) is None
    cursor.finish()
    assert cursor.without_record == []
