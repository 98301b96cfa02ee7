"""Which ranges are read to get at single offsets."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pipeline.broker.admin.topics import OffsetRange
from pipeline.broker.reading.ranges import _NEAR_OFFSETS, _spans


def test_offsets_near_each_other_are_read_at_once() -> None:
    near, far = _NEAR_OFFSETS, 2 * _NEAR_OFFSETS
    assert list(_spans([])) == []
    assert list(_spans([0])) == [OffsetRange(0, 1)]
    assert list(_spans([5, near, 3 * far, 3 * far + 1])) == [
        OffsetRange(5, near + 1),
        OffsetRange(3 * far, 3 * far + 2),
    ]


@given(st.sets(st.integers(0, 20 * _NEAR_OFFSETS)))
def test_every_offset_is_in_one_range_and_no_gap_is_long(wanted: set[int]) -> None:
    offsets = sorted(wanted)
    spans = list(_spans(offsets))
    for offset in offsets:
        assert sum(each.beginning <= offset < each.end for each in spans) == 1
    for before, after in pairwise(spans):
        assert after.beginning - before.end > _NEAR_OFFSETS
    assert {each.beginning for each in spans} | {each.end - 1 for each in spans} <= wanted
