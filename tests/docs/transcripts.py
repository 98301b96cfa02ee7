"""Drills of the runbook as documents write them: parts, commands, and what they must print.

A block of code whose lines begin with `$ ` is a transcript:

    $ rmos index check
    Error: The index of the store /srv/rmos is missing: run rmos index rebuild.
    [6]

`[6]` is the exit status where it is not 0. `...` in a line stands for any text, a line of it
alone for any number of lines. White space counts as one blank. `^C` stands where somebody presses
Ctrl-C once all lines above it are there.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

RUNBOOK = Path(__file__).resolve().parents[2] / "docs" / "runbook"
PARTS = ("You see", "Run", "Then")
INTERRUPT = "^C"

_HEADING = re.compile(r"^## (.*)$", re.MULTILINE)
_BLOCK = re.compile(r"(?:^    .*\n)+", re.MULTILINE)
_STATUS = re.compile(r"\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a transcript.

    Attributes:
        line: As a shell takes it.
        printed: The lines that must come out, standard output and error together.
        status: The exit status.
    """

    line: str
    printed: tuple[str, ...]
    status: int


def headings(page: Path) -> list[str]:
    return _HEADING.findall(page.read_text(encoding="utf-8"))


def parts_of(page: Path, heading: str) -> dict[str, str]:
    """Return the text of each part of a drill."""
    text = page.read_text(encoding="utf-8")
    found = re.search(
        rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE
    )
    assert found is not None, f"{page.name} has no drill {heading!r}"
    pieces = re.split(rf"^({'|'.join(PARTS)})\b", found[1], flags=re.MULTILINE)
    assert tuple(pieces[1::2]) == PARTS, f"{heading}: {pieces[1::2]}"
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))


def commands_of(text: str) -> Iterator[Command]:
    """Yield the commands of all transcripts in a text."""
    for block in _BLOCK.findall(f"{text}\n"):
        lines = [line[4:].rstrip() for line in block.splitlines()]
        if not lines[0].startswith("$ "):
            continue
        starts = [number for number, line in enumerate(lines) if line.startswith("$ ")]
        for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
            yield _command(lines[start], lines[start + 1 : end])


def _command(line: str, printed: list[str]) -> Command:
    status = 0
    if printed and (found := _STATUS.fullmatch(printed[-1])):
        status = int(found[1])
        del printed[-1]
    return Command(line.removeprefix("$ "), tuple(printed), status)


def difference(expected: Sequence[str], printed: str) -> str | None:
    """Return how what was printed differs from what a document shows; None where it does not."""
    shown = "\n".join(map(_one_blank, expected))
    came = "\n".join(filter(None, map(_one_blank, printed.splitlines())))
    if re.fullmatch(_pattern(expected), f"{came}\n" if came else ""):
        return None
    return f"the document shows:\n{shown}\nand this was printed:\n{came}"


def _pattern(expected: Sequence[str]) -> str:
    return "".join(
        r"(?:.*\n)*" if line == "..." else _line_pattern(_one_blank(line)) + r"\n"
        for line in expected
    )


def _line_pattern(line: str) -> str:
    return ".*".join(map(re.escape, line.split("...")))


def _one_blank(line: str) -> str:
    return " ".join(line.split())
