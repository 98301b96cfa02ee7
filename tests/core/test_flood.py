"""The flood limit: more than half of the last 1,000 verdicts, once 500 have been seen."""

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.flood import FloodWindow


def flooded(window: FloodWindow, failures: list[bool]) -> bool:
    return window.after(failures)[1]


def test_nothing_floods_before_500_verdicts_have_been_seen() -> None:
    assert not flooded(FloodWindow(), [True] * 499)
    assert flooded(FloodWindow(), [True] * 500)


def test_exactly_half_is_no_flood_and_one_more_is() -> None:
    half = [False] * 500 + [True] * 500
    assert not flooded(FloodWindow(), half)
    window, _ = FloodWindow().after(half)
    # The next failure pushes a good one out.
    assert flooded(window, [True])


def test_only_the_last_thousand_count() -> None:
    window, _ = FloodWindow().after([False] * 5000)
    assert window.verdicts == "0" * 1000
    assert not flooded(window, [True] * 500)
    assert flooded(window, [True] * 501)


def test_a_flood_in_the_middle_of_a_batch_is_seen_at_its_end() -> None:
    assert flooded(FloodWindow(), [True] * 600 + [False] * 5000)


def test_above_the_limit_good_records_go_on_and_the_next_failure_stops() -> None:
    window = FloodWindow("1" * 1000)
    after, stops = window.after([False] * 100)
    assert not stops
    assert flooded(after, [True])


def test_the_window_says_the_same_however_the_verdicts_are_cut_into_batches() -> None:
    verdicts = [number % 3 == 0 for number in range(2500)]
    whole, _ = FloodWindow().after(verdicts)
    window = FloodWindow()
    for start in range(0, len(verdicts), 7):
        window, _ = window.after(verdicts[start : start + 7])
    assert window == whole


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 400)), max_size=8))
def test_it_floods_exactly_where_counting_says(runs: list[tuple[bool, int]]) -> None:
    verdicts = [failed for failed, times in runs for _ in range(times)]
    expected = False
    for seen in range(500, len(verdicts) + 1):
        last = verdicts[max(0, seen - 1000) : seen]
        expected |= verdicts[seen - 1] and sum(last) * 2 > len(last)
    assert flooded(FloodWindow(), verdicts) == expected
