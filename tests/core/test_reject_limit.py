"""The reject limit: more than half of the last 1,000 verdicts, once 500 have been seen."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.reject_limit import LEAST_SEEN, WINDOW, RejectWindow

VERDICTS = st.lists(st.booleans(), max_size=60)


def window(good: int = 0, failed: int = 0) -> RejectWindow:
    return RejectWindow("0" * good + "1" * failed)


def test_an_empty_window_is_not_exceeded() -> None:
    assert not RejectWindow().is_exceeded
    assert RejectWindow().after([]) == (RejectWindow(), False)


def test_fewer_than_500_verdicts_are_too_few_to_tell() -> None:
    assert not window(failed=LEAST_SEEN - 1).is_exceeded
    assert window(failed=LEAST_SEEN).is_exceeded


@pytest.mark.parametrize(
    ("good", "failed", "exceeded"),
    [(250, 250, False), (250, 251, True), (249, 251, True), (500, 500, False), (499, 501, True)],
)
def test_half_is_allowed_and_more_is_not(good: int, failed: int, exceeded: bool) -> None:
    assert window(good, failed).is_exceeded is exceeded


def test_a_limit_reached_in_the_middle_of_a_batch_is_seen_though_good_records_follow() -> None:
    after, exceeded = window(good=250, failed=250).after([True] * 2 + [False] * 500)
    assert exceeded
    assert not after.is_exceeded


def test_a_good_record_alone_never_stops_the_worker() -> None:
    after, exceeded = window(good=100, failed=LEAST_SEEN - 101).after([False])
    assert after.is_exceeded
    assert not exceeded
    assert after.after([True])[1]


def test_the_oldest_verdicts_are_forgotten() -> None:
    after, exceeded = RejectWindow("1" * 400 + "0" * 600).after([True] * 400)
    assert (after, exceeded) == (window(good=600, failed=400), False)
    assert len(after.verdicts) == WINDOW


@given(VERDICTS, VERDICTS)
def test_two_batches_count_as_one_does(first: list[bool], second: list[bool]) -> None:
    start = window(good=LEAST_SEEN // 2, failed=LEAST_SEEN // 2 - 10)
    middle, early = start.after(first)
    end, late = middle.after(second)
    assert (end, early or late) == start.after(first + second)


@given(VERDICTS)
def test_good_records_alone_never_reach_the_limit(verdicts: list[bool]) -> None:
    start = window(failed=LEAST_SEEN)
    assert not start.after([False] * len(verdicts))[1]


@settings(max_examples=60)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 400)), max_size=8))
def test_the_limit_is_reached_exactly_where_counting_says(runs: list[tuple[bool, int]]) -> None:
    verdicts = [failed for failed, times in runs for _ in range(times)]
    expected = False
    for seen in range(500, len(verdicts) + 1):
        last = verdicts[max(0, seen - 1000) : seen]
        expected |= verdicts[seen - 1] and sum(last) * 2 > len(last)
    assert RejectWindow().after(verdicts)[1] == expected


def after_one_by_one(start: RejectWindow, verdicts: list[bool]) -> tuple[RejectWindow, bool]:
    """Return what `after` returns, by the definition itself: a window after each verdict."""
    after, exceeded = start, False
    for failed in verdicts:
        after = RejectWindow((after.verdicts + ("1" if failed else "0"))[-WINDOW:])
        exceeded = exceeded or (failed and after.is_exceeded)
    return after, exceeded


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from("01"), st.integers(0, 500)), max_size=4),
    st.lists(st.tuples(st.booleans(), st.integers(1, 400)), max_size=6),
)
def test_a_batch_counts_as_its_verdicts_do_one_by_one(
    before: list[tuple[str, int]], runs: list[tuple[bool, int]]
) -> None:
    start = RejectWindow("".join(letter * times for letter, times in before)[-WINDOW:])
    verdicts = [failed for failed, times in runs for _ in range(times)]
    assert start.after(verdicts) == after_one_by_one(start, verdicts)
