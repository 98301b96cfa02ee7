"""The system calls that a program really made, as strace wrote them down."""

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_LINE = re.compile(r"(?:\[pid +[0-9]+\] |[0-9]+ +)?(?P<name>[a-z0-9_]+)\((?P<arguments>.*)\) += .*")
_UNFINISHED = " <unfinished ...>"


@dataclass(frozen=True, slots=True)
class Call:
    """One call; its arguments as strace shows them, descriptors with their paths."""

    name: str
    arguments: str

    def is_of(self, name: str, part: str = "") -> bool:
        """Tell whether it is a call of this name, with `part` in its arguments."""
        return self.name == name and part in self.arguments


def traced(program: Sequence[str], log: Path, calls: Sequence[str], *, folder: Path) -> list[Call]:
    """Run `program` in `folder` under strace; return those of its calls that are in `calls`."""
    traced_program = [
        *("strace", "-f", "-y", "-s", "200", "-e", "signal=none"),
        *("-e", f"trace={','.join(calls)}", "-o", str(log)),
        *program,
    ]
    subprocess.run(traced_program, cwd=folder, check=True, capture_output=True)
    return parse_log(log.read_text())


def parse_log(text: str) -> list[Call]:
    """Return the finished calls of a log, in the order in which they began."""
    found = []
    for line in text.splitlines():
        match = _LINE.fullmatch(line.replace(_UNFINISHED, ") = ?"))
        if match is not None:
            found.append(Call(match["name"], match["arguments"]))
    return found
