"""The progress of a long operation."""

from collections.abc import Callable

Progress = Callable[[str, int, int | None], None]
"""Called with what is counted, how many are done, and how many there are, where that is known."""


def no_progress(what: str, done: int, total: int | None) -> None:
    """Show nothing."""
    del what, done, total
