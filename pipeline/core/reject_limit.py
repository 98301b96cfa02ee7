"""The reject limit: when most records fail, the fault is ours, so stop.

More than half of the last 1,000 verdicts, once 500 have been seen.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

WINDOW = 1000
LEAST_SEEN = 500


@dataclass(frozen=True, slots=True)
class RejectWindow:
    """The last verdicts of one consumer group.

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
        window, exceeded = self, False
        for failed in failures:
            window = RejectWindow((window.verdicts + ("1" if failed else "0"))[-WINDOW:])
            # A good record never stops the worker: no accepted reject could let it through.
            exceeded = exceeded or (failed and window.is_exceeded)
        return window, exceeded


def without_first_failures(failures: Sequence[bool], count: int) -> list[bool]:
    """Return `failures` without the first `count` that are, which the operator lets through."""
    kept = []
    for failed in failures:
        if failed and count:
            count -= 1
            continue
        kept.append(failed)
    return kept


def reject_limit_message(window: RejectWindow) -> str:
    """Say that too many records fail, and what to do."""
    seen = len(window.verdicts)
    return (
        f"{window.verdicts.count('1')} of the last {seen} records are dead letters or "
        "incomplete, so the fault is likely ours or one producer's: nothing of this batch was "
        "written; look at the records, mend the cause, or let the next N through with "
        "--accept-rejects N."
    )
