"""One law over many cases in one test, which lists every case that breaks it."""

from collections.abc import Callable, Iterable
from typing import TypeVar

import pytest

Case = TypeVar("Case")


def offenders(holds: Callable[[Case], None], cases: Iterable[Case]) -> list[str]:
    """Return each of `cases` for which `holds` fails, with why; it asserts as a test does."""
    found = []
    for case in cases:
        try:
            holds(case)
        except (AssertionError, pytest.fail.Exception) as error:
            found.append(f"{case!r}: {error}")
    return found
