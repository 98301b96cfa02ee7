"""Gaps in a rising row of offsets, and what it costs to find them."""

from collections.abc import Callable
from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from pipeline.consumers.start.ledger_checks import offset_gaps

OFFSETS = st.sets(st.integers(0, 80), max_size=60).map(sorted)


@given(OFFSETS, st.integers(0, 90))
def test_every_offset_between_start_and_the_last_is_there_or_in_a_gap(
    offsets: list[int], start: int
) -> None:
    gaps = list(offset_gaps(len(offsets), offsets.__getitem__, start))
    missing = [offset for begin, end in gaps for offset in range(begin, end)]
    last = offsets[-1] if offsets else -1
    assert missing == [offset for offset in range(start, last + 1) if offset not in offsets]
    assert all(begin < end for begin, end in gaps)


def counted(offset_at: Callable[[int], int], looks: list[int]) -> Callable[[int], int]:
    def look(index: int) -> int:
        looks.append(index)
        return offset_at(index)

    return look


def test_a_hundred_million_offsets_without_a_gap_cost_a_bisection() -> None:
    looks: list[int] = []
    assert list(offset_gaps(100_000_000, counted(lambda index: index, looks), 5_000)) == []
    assert len(looks) < 40


def test_the_first_gaps_of_a_row_full_of_them_cost_little() -> None:
    looks: list[int] = []
    gaps = offset_gaps(100_000_000, counted(lambda index: 2 * index, looks), 0)
    assert list(islice(gaps, 3)) == [(1, 2), (3, 4), (5, 6)]
    assert len(looks) < 100
