"""Which records a restore makes again, which it lets the store consume, and what it refuses."""

import pytest

from pipeline.broker.admin.topics import OffsetRange
from pipeline.errors import StoreNotReadyError
from pipeline.ledger.log_id import LogId
from pipeline.recovery.replay.history import ObservedRecord
from pipeline.recovery.replay.partitions import ReplayedPartition
from pipeline.recovery.replay.request_topics import request_topics
from pipeline.recovery.replay.restore import RestoreSteps, refuse_loss
from pipeline.topics import TopicNames
from tests.storage.stores import TOPIC, tombstone


def steps(
    *,
    begin: int = 0,
    end: int = 100,
    log: tuple[int, int] = (0, 100),
    position: int = 0,
    leaves_to: int = 0,
    has_ledger: bool = True,
    is_whole: bool = True,
) -> RestoreSteps:
    partition = ReplayedPartition(
        request_topics(TopicNames())[0],
        LogId(1, TOPIC, 0),
        OffsetRange(*log),
        begin,
        end,
        pending=0,
        position=position,
        leaves=None,
        leaves_to=leaves_to,
        has_every_leaf=False,
    )
    return RestoreSteps.of(partition, has_ledger=has_ledger, is_whole=is_whole)


def treated(found: RestoreSteps, offsets: range) -> tuple[list[int], list[int]]:
    """Return which offsets are made again, and which are consumed."""
    observed = [ObservedRecord(tombstone(offset), None, is_first_read=False) for offset in offsets]
    return (
        [each.record.source.id.offset for each in observed if found.is_known(each)],
        [each.record.source.id.offset for each in observed if found.is_to_consume(each)],
    )


@pytest.mark.parametrize(
    ("found", "made_again", "consumed"),
    [
        (steps(), [], [0, 40, 80]),
        (steps(position=100, leaves_to=100), [0, 40, 80], []),
        (steps(position=50, leaves_to=50), [0, 40], [80]),
        # The index is lost: rows are made again, what has a leaf gets none.
        (steps(position=0, leaves_to=100), [0, 40, 80], []),
        # The ledger is lost: files are made again, and every offset gets its leaf.
        (steps(position=100, leaves_to=0), [0, 40, 80], [0, 40, 80]),
        (steps(position=50, has_ledger=False), [0, 40], [80]),
        # After a gap, or some records of a range: files and rows alone.
        (steps(begin=30), [0, 40, 80], []),
        (steps(is_whole=False), [0, 40, 80], []),
        (steps(begin=30, position=50, leaves_to=50), [0, 40], [80]),
        # Rows are not known as far as leaves are: nothing may say that they are.
        (steps(begin=30, position=20, leaves_to=60), [0, 40, 80], []),
    ],
)
def test_each_record_is_made_again_or_consumed(
    found: RestoreSteps, made_again: list[int], consumed: list[int]
) -> None:
    assert treated(found, range(0, 100, 40)) == (made_again, consumed)


@pytest.mark.parametrize(
    ("found", "goes_beyond"),
    [
        (steps(), True),
        (steps(position=100, leaves_to=100), False),
        (steps(position=99, leaves_to=99), True),
        (steps(position=100, leaves_to=0), True),
        (steps(begin=20, end=20), False),
        (steps(begin=20, end=30, position=50, leaves_to=50), False),
        (steps(begin=30, is_whole=False, position=100, leaves_to=100), False),
        (steps(begin=30, is_whole=False, position=50, leaves_to=50), True),
    ],
)
def test_workers_must_stop_where_the_store_lacks_what_they_have_passed(
    found: RestoreSteps, goes_beyond: bool
) -> None:
    assert found.goes_beyond_store is goes_beyond


def test_a_log_that_begins_after_the_store_ends_is_refused() -> None:
    lost = steps(begin=40, log=(40, 100), position=10, leaves_to=10)
    assert lost.lost == (10, 39)
    with pytest.raises(StoreNotReadyError, match=f"offsets 10 to 39 of {TOPIC}, partition 0"):
        refuse_loss([steps(), lost])


@pytest.mark.parametrize(
    "found",
    [
        steps(),
        steps(begin=40, log=(40, 100), position=40, leaves_to=40),
        steps(begin=40, log=(40, 100), position=90, leaves_to=90),
        # Files and rows of a part are no promise about what is before it.
        steps(begin=60, log=(40, 100)),
        steps(begin=40, log=(40, 100), is_whole=False),
    ],
)
def test_what_is_stored_or_not_asked_for_is_no_loss(found: RestoreSteps) -> None:
    assert found.lost is None
    refuse_loss([found])
