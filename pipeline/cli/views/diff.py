"""The output of a diff: one line for each difference, coloured on a terminal."""

import json
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.text import Text

from pipeline.cli.views.terminal import print_styled
from pipeline.core.json.difference import dotted_path
from pipeline.core.visible_text import visible

VALUE_LIMIT_CHARACTERS = 100
"""Longest text of a value, or of a path, that is shown whole; a quoted SHA-256 has 66."""

_SEVERITY_STYLES = {"CRITICAL": "bold red", "WARNING": "bold yellow", "INFO": "bold cyan"}
_OPS = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}
_NESTED_GROUPS = frozenset({"claimed_hashes", "context", "decision", "hashes", "meta", "outputs"})


def print_diff(diff: dict[str, Any], console: Console | None = None) -> None:
    """Print a `RunDiff`; without colours where the console is no terminal."""
    for line in _lines(diff):
        print_styled(line, console)


def _lines(diff: dict[str, Any]) -> Iterator[Text]:
    yield Text(visible(diff["summary"]), _SEVERITY_STYLES[diff["diff_severity"]])
    for side, sign, style in (("a", "-", "red"), ("b", "+", "green")):
        run = diff[side]
        yield Text(f"{sign} {side}: {run['run_id']}  {run['created_at_utc']}", style)
    fields = dict(_fields(diff["diff"]))
    for path, leaf in fields.items():
        yield _line(path, _op(leaf), leaf)
    for item in diff["items"]:
        if _field_of(item) not in fields:
            yield _line(item["path"], item["op"], item)
    if diff["truncated"]:
        more = sum(diff["counts"].values()) - len(diff["items"])
        yield Text(f"... and {more:,} more", "dim")


def _fields(groups: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield path and leaf of every field, except those of feasibility: its items have more detail.

    The other groups are shown from here because a long list of items may have been cut.
    """
    for name, found in groups.items():
        if name in _NESTED_GROUPS:
            yield from ((dotted_path((name, field)), leaf) for field, leaf in found.items())
        elif name != "feasibility":
            yield name, found


def _field_of(item: dict[str, Any]) -> str:
    """Return the path of the field that an item lies in: `decision.warnings`."""
    return ".".join(item["path"].split(".")[:2])


def _op(leaf: dict[str, Any]) -> str:
    if "a" not in leaf:
        return "added"
    return "changed" if "b" in leaf else "removed"


def _line(path: str, op: str, sides: dict[str, Any]) -> Text:
    sign, style = _OPS[op]
    line = Text(f"{sign} {visible(_cut(path))}: ", style)
    values = [_shown(sides[side]) for side in ("a", "b") if side in sides]
    return line.append(" -> ".join(values), "default")


def _shown(value: object) -> str:
    return visible(_cut(json.dumps(value, ensure_ascii=False)))


def _cut(text: str) -> str:
    if len(text) <= VALUE_LIMIT_CHARACTERS:
        return text
    return text[:VALUE_LIMIT_CHARACTERS] + "..."
