"""The ledger compared with the consumed offsets: each log, against store and broker.

A log that goes on after a hole would sign another history than its older checkpoints, so
no option lets a worker go on: only the log that belongs there does.

Which offsets are left out of a rising row of them, found without reading all of it.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import islice

from pipeline.broker.reading.ranges import first_record
from pipeline.consumers.start.partition_states import PartitionState
from pipeline.errors import StoreNotReadyError
from pipeline.ledger.reader import LogReader
from pipeline.settings import Settings


def offset_gaps(
    count: int, offset_at: Callable[[int], int], start: int
) -> Iterator[tuple[int, int]]:
    """Yield each gap from `start` to the last offset, in order, as its first and the next offset.

    Where index and offset rise alike there is no gap, so a half without one is never looked into:
    a gap costs as many looks as a bisection, none costs two.

    Args:
        count: How many offsets there are.
        offset_at: Gives the one at an index from 0; each is larger than the one before.
        start: The first offset that is asked for; those before it may be missing.
    """
    first = bisect_left(range(count), start, key=offset_at)
    if first == count:
        return
    if offset_at(first) > start:
        yield start, offset_at(first)
    spans = [(first, count - 1)]
    while spans:
        low, high = spans.pop()
        begin, end = offset_at(low), offset_at(high)
        if end - begin == high - low:
            continue
        if high - low == 1:
            yield begin + 1, end
            continue
        middle = (low + high) // 2
        spans += [(middle, high), (low, middle)]


GAPS_ASKED = 16
"""Most gaps of one log that the broker is asked about at a start; each costs a read.

A gap beyond is met when its record comes: the ledger refuses it then, with exit status 5.
"""


async def check_ledger(settings: Settings, state: PartitionState) -> None:
    """Check the log of one partition. A leaf beyond the store's position is no fault.

    A worker that died between a checkpoint and the index's commit leaves such leaves.

    Raises:
        StoreNotReadyError: There is no log of what was consumed, it ends too early, or it lacks
            leaves of what is to be consumed again.
        IntegrityError: The log is not what was written.
        BrokerError: No broker answers.
    """
    await _refuse_short_log(settings, state)
    if state.ledger is not None and state.logged > state.read_from:
        await _refuse_hole(settings, state, state.ledger)


async def _refuse_short_log(settings: Settings, state: PartitionState) -> None:
    """Refuse a log without the last records that the store has.

    It cannot be known where the broker has removed them, and is not checked for accepted losses.
    """
    begin = max(state.logged, state.given_up, state.begin)
    end = min(state.stored, state.end)
    found = await first_record(settings, state.topic, state.partition, [(begin, end)])
    if found is None:
        return
    if state.ledger is None:
        raise StoreNotReadyError(
            f"The store has records up to offset {state.stored} of {state.place}, but no log of "
            "them: run rmos ledger init."
        )
    path = state.ledger.log.path
    raise StoreNotReadyError(
        f"The store has records up to offset {state.stored} of {state.place}, its log ends "
        f"before offset {found}: it was cut or replaced; put back the latest copy of {path}, or "
        "run rmos replay restore into an empty store of the same store_id and epoch."
    )


async def _refuse_hole(settings: Settings, state: PartitionState, ledger: LogReader) -> None:
    """Refuse a log that has no leaf where a record comes again, and goes on after it."""
    gaps = offset_gaps(ledger.size, lambda index: ledger.leaf(index).offset, state.read_from)
    # All before the end: a log that goes on beyond it was refused before.
    asked = list(islice(gaps, GAPS_ASKED))
    found = await first_record(settings, state.topic, state.partition, asked)
    if found is not None:
        raise StoreNotReadyError(
            f"Offset {found} of {state.place} is to be consumed again and has no leaf, though "
            f"its log goes on to offset {state.logged - 1}: put back the latest copy of "
            f"{ledger.log.path}, or run rmos replay restore into an empty store of the same "
            "store_id and epoch: it restores what the group has passed, and a worker that is "
            "started then consumes the rest."
        )
