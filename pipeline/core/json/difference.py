"""How two JSON values differ: a bounded list of what was added, removed or changed."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final

ITEM_LIMIT = 2000
"""Most differences that are listed."""

PATHS_LIMIT_CHARACTERS = 1_000_000
"""Most characters of all listed paths together; the first is listed whatever its length.

500 for each of 2,000. Otherwise one key of 1 MiB above a list would be written 2,000 times.
"""

ABSENT: Final = object()
"""The side of a difference that has no value. Null is a value."""


@dataclass(frozen=True, slots=True)
class ValueDiff:
    """What `diff_values` found.

    Attributes:
        items: `{path, op, a?, b?}`, sorted by path; no two paths are equal.
        counts: Differences by op (added, removed, changed), those not listed included.
    """

    items: list[dict[str, Any]]
    counts: dict[str, int]

    @property
    def truncated(self) -> bool:
        """Whether there are more differences than are listed."""
        return len(self.items) < sum(self.counts.values())


def diff_values(a: object, b: object) -> ValueDiff:
    """Return how `b` differs from `a`; both hold JSON types only and nest at most 64 levels.

    Two values are the same where their canonical JSON is: 1 and 1.0, and true and 1, differ.
    Objects are compared by key, lists by index, all else as a whole. A part that only one side
    has is one difference, as is a part whose type differs. Where there are too many to list,
    those that come first in the documents are listed: keys by code point, lists by index.
    The items share their values with `a` and `b`.
    """
    walk = _Walk()
    walk.compare(a, b)
    items = sorted(walk.items, key=lambda item: item["path"])
    return ValueDiff(items, walk.counts)


def dotted_path(segments: Iterable[str | int]) -> str:
    r"""Return keys and list indexes as one path: `feasibility.rings.0.ok`.

    A dot inside a key becomes `\.` and a backslash `\\`, so two paths are never equal by chance.
    """
    return ".".join(str(part).replace("\\", "\\\\").replace(".", "\\.") for part in segments)


def present_sides(a: object, b: object) -> dict[str, Any]:
    """Return `{a, b}` without the side that is absent."""
    return {name: value for name, value in (("a", a), ("b", b)) if value is not ABSENT}


class _Walk:
    """One comparison on its way; `compare` collects into `items` and `counts`."""

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []
        self.counts = {"added": 0, "removed": 0, "changed": 0}
        self._is_full = False
        self._path_characters = 0
        self._segments: list[str | int] = []

    def compare(self, a: object, b: object) -> None:
        # By type first: to Python 1, 1.0 and True are equal. ABSENT is of no other's type.
        if type(a) is not type(b):
            self._collect(a, b)
        elif isinstance(a, (dict, list)):
            for segment, a_part, b_part in _parts(a, b):
                self._segments.append(segment)
                self.compare(a_part, b_part)
                self._segments.pop()
        elif a != b or (a == 0 and repr(a) != repr(b)):  # 0.0 and -0.0 are written differently
            self._collect(a, b)

    def _collect(self, a: object, b: object) -> None:
        op = "added" if a is ABSENT else "removed" if b is ABSENT else "changed"
        self.counts[op] += 1
        if not self._is_full:
            self._list({"path": dotted_path(self._segments), "op": op} | present_sides(a, b))

    def _list(self, item: dict[str, Any]) -> None:
        self._path_characters += len(item["path"])
        if self.items and self._path_characters > PATHS_LIMIT_CHARACTERS:
            self._is_full = True
            return
        self.items.append(item)
        self._is_full = len(self.items) == ITEM_LIMIT


def _parts(a: Any, b: Any) -> Iterator[tuple[str | int, object, object]]:  # noqa: ANN401
    """Yield key or index, and what each side has there, of two objects or two lists."""
    if isinstance(a, list):
        for index, (a_part, b_part) in enumerate(zip_longest(a, b, fillvalue=ABSENT)):
            yield index, a_part, b_part
        return
    for key in sorted(a.keys() | b.keys()):
        yield key, a.get(key, ABSENT), b.get(key, ABSENT)
