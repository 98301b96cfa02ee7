"""The reject limit: when most records fail, the fault is ours, so stop.

More than half of the last 1,000 verdicts of a partition, once 500 have been seen.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.core.record import Partition
from pipeline.errors import RejectLimitError

WINDOW = 1000
LEAST_SEEN = 500


@dataclass(frozen=True, slots=True)
class RejectWindow:
    """The last verdicts of one consumer group in one partition.

    Attributes:
        verdicts: One letter each, oldest first: `0` good, `1` failed; at most 1,000.
    """

    verdicts: str = ""

    @property
    def is_exceeded(self) -> bool:
        """Whether too many have failed."""
        seen = len(self.verdicts)
        return seen >= LEAST_SEEN and self.verdicts.count("1") * 2 > seen

    def after(self, failures: Iterable[bool]) -> "tuple[RejectWindow, bool]":
        """Return the window after more verdicts, and whether it was exceeded at any of them."""
        seen = len(self.verdicts)
        verdicts = self.verdicts + "".join(["1" if failed else "0" for failed in failures])
        # A good record never stops the worker: no accepted reject could let it through.
        ends = (at + 1 for at in range(seen, len(verdicts)) if verdicts[at] == "1")
        windows = (RejectWindow(verdicts[max(0, end - WINDOW) : end]) for end in ends)
        exceeded = any(window.is_exceeded for window in windows)
        return RejectWindow(verdicts[-WINDOW:]), exceeded


def after_verdicts(
    window: RejectWindow,
    failures: Sequence[bool],
    accepted_rejects: int,
    *,
    place: Partition | None = None,
) -> tuple[RejectWindow, int]:
    """Return the window after more verdicts, and how many failures the operator let through.

    Args:
        window: The verdicts before.
        failures: Of each new verdict whether it is a failure.
        accepted_rejects: Most failures that do not count.
        place: Whose window it is; None where there is one for all.

    Raises:
        RejectLimitError: Too many of the last verdicts are failures.
    """
    accepted = min(accepted_rejects, sum(failures))
    window, exceeded = window.after(_without_first_failures(failures, accepted))
    if exceeded:
        whose = "" if place is None else f" of {place[0]}, partition {place[1]},"
        raise RejectLimitError(
            f"{window.verdicts.count('1')} of the last {len(window.verdicts)} records{whose} are "
            "dead letters or incomplete, so the fault is likely ours or one producer's: nothing of "
            "this batch was written; look at the records, mend the cause, or let the next N "
            "through with --accept-rejects N."
        )
    return window, accepted


def _without_first_failures(failures: Sequence[bool], count: int) -> list[bool]:
    """Return `failures` without the first `count` that are, which the operator lets through."""
    kept = []
    for failed in failures:
        if failed and count:
            count -= 1
            continue
        kept.append(failed)
    return kept
