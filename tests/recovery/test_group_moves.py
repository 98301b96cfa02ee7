"""Moves of a group stay within the log, and back is exactly where it was."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.broker.admin.groups import GroupPosition
from pipeline.recovery.group_moves import OffsetMove, moves_back, moves_within_log


@st.composite
def positions(draw: st.DrawFn) -> GroupPosition:
    begin = draw(st.integers(0, 100))
    end = begin + draw(st.integers(0, 100))
    committed = draw(st.none() | st.integers(0, 250))
    return GroupPosition("t", draw(st.integers(0, 11)), begin, end, committed)


POSITION = GroupPosition("t", 0, 10, 50, 30)


def test_lag_and_loss_are_counted_within_the_log() -> None:
    assert (POSITION.lag, POSITION.lost) == (20, 0)
    new = GroupPosition("t", 0, 10, 50, None)
    assert (new.following, new.lag, new.lost) == (10, 40, 0)
    overtaken = GroupPosition("t", 0, 10, 50, 4)
    assert (overtaken.lag, overtaken.lost) == (40, 6)
    ahead = GroupPosition("t", 0, 10, 50, 60)
    assert (ahead.lag, ahead.lost) == (0, 0)


@given(st.lists(positions(), max_size=5), st.integers(-300, 300))
def test_no_move_leaves_the_log_and_none_stays(found: list[GroupPosition], wanted: int) -> None:
    for move in moves_within_log(found, lambda _: wanted):
        position = move.position
        assert move.to is not None
        assert position.begin <= move.to <= position.end
        assert move.to != position.committed
        assert move.is_clamped is not (position.begin <= wanted <= position.end)
        assert move.difference == move.to - position.following


@given(positions(), st.integers(0, 200))
def test_moving_back_gives_what_was_committed(position: GroupPosition, wanted: int) -> None:
    (*moves,) = moves_within_log([position], lambda _: wanted)
    for move in moves:
        moved = GroupPosition("t", position.partition, position.begin, position.end, move.to)
        (back,) = moves_back([moved], {("t", position.partition): position.committed})
        assert back.to == position.committed
        assert back.difference == -move.difference


def test_a_partition_that_is_not_named_stays() -> None:
    assert moves_within_log([POSITION], lambda _: None) == []
    assert moves_back([POSITION], {}) == []
    assert moves_back([POSITION], {("t", 0): 30}) == []


def test_where_a_group_has_never_been_is_gone_back_to() -> None:
    assert moves_back([POSITION], {("t", 0): None}) == [OffsetMove(POSITION, None, None)]
