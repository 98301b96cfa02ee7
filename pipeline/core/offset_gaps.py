"""Which offsets are left out of a rising row of them, found without reading all of it."""

from bisect import bisect_left
from collections.abc import Callable, Iterator


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
