"""What the record says, in words for people; never OK on doubt."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from pipeline.core.json.canonical import canonical_json
from pipeline.core.run_view import members_of
from pipeline.core.runs.outcome import StoredRun
from pipeline.core.runs.words import refused_elsewhere, words_of_run
from pipeline.core.toolpath.svg import facts_of, remarks_of

_LONGEST_VALUE: Final = 2_000
_MOST_ROWS: Final = 300
_DEEPEST: Final = 6

PROGRAM_KNOWN_BY: Final = {
    "stored": "computed from the G-code that came with the request",
    "attached": "the name of an attachment that the run lists",
    "claimed": "claimed by the producer; nobody here has seen the program",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """One line that answers whether a machine may cut.

    Attributes:
        may_cut: Whether it may.
        head: `MAY CUT` and what must be known first, or `DO NOT CUT`.
        reason: The first reason why not, or what stands behind `MAY CUT`.
        kind: `go`, `care` where something must be known first, or `stop`.
    """

    may_cut: bool
    head: str
    reason: str
    kind: str


def verdict_of(run: StoredRun, doubt: str | None = None, refused_by: str | None = None) -> Verdict:
    """Return the verdict of a stored run.

    Args:
        run: As the index has it, its file checked.
        doubt: What else is wrong with what would be cut; None where nothing is.
        refused_by: Another run, which refuses the same program.
    """
    words = words_of_run(run, doubt)
    if words != "MAY CUT":
        return spoken_verdict(words, run.risk_level)
    if refused_by is not None:
        return Verdict(True, *refused_elsewhere(refused_by), "care")
    reason = "" if run.program else ": by what its artifact holds; it releases no file"
    return spoken_verdict(f"{words}{reason}", run.risk_level)


def spoken_verdict(words: str, risk_level: str | None) -> Verdict:
    """Return a verdict that is said in words already.

    Args:
        words: `MAY CUT` or `DO NOT CUT`, and behind a colon why.
        risk_level: Of the run that decided; None where none did.
    """
    head, _, reason = words.partition(": ")
    if head != "MAY CUT":
        return Verdict(False, head, reason, "stop")
    if risk_level == "GREEN":
        return Verdict(True, head, reason, "go")
    return Verdict(True, f"{head}, with warnings", reason, "care")


def can_be_drawn(run: StoredRun) -> bool:
    """Return whether the store may have the program of a run, and may show it."""
    program = run.program
    return run.status == "OK" and program is not None and program.known_by != "claimed"


@dataclass(frozen=True, slots=True)
class ProgramFacts:
    """What is known of a program that was drawn.

    Attributes:
        rows: Names and values.
        remarks: What of it is not drawn, or not as a machine would move.
    """

    rows: Sequence[tuple[str, str]]
    remarks: Sequence[str]


def program_facts(drawn: bytes) -> ProgramFacts:
    """Return the facts of the document of a drawing."""
    members = members_of(drawn)
    # Nearly all of it, and not needed here.
    del members["paths"]
    summary = {name: msgspec.json.decode(value) for name, value in members.items()}
    return ProgramFacts(list(facts_of(summary)), list(remarks_of(summary)))


@dataclass(frozen=True, slots=True)
class Table:
    """A value of any shape as rows.

    Attributes:
        rows: A dotted path, and the text of what is there.
        left_out: How many more there are.
    """

    rows: Sequence[tuple[str, str]]
    left_out: int


def table_of(value: object) -> Table:
    """Return the leaves of a value; those behind the first 300 are counted."""
    rows = list(_leaves("", value, 0))
    return Table(rows[:_MOST_ROWS], max(len(rows) - _MOST_ROWS, 0))


def _leaves(path: str, value: object, depth: int) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value and depth < _DEEPEST:
        for name in sorted(value):
            yield from _leaves(f"{path}.{name}" if path else str(name), value[name], depth + 1)
    elif isinstance(value, list) and value and depth < _DEEPEST:
        if all(isinstance(each, str) for each in value):
            yield path, shortened("\n".join(value))
            return
        for number, each in enumerate(value):
            yield from _leaves(f"{path}[{number}]", each, depth + 1)
    else:
        yield path, text_of(value)


def text_of(value: Any) -> str:  # noqa: ANN401  # any JSON
    """Return one value as a person reads it; a number has every digit."""
    return shortened(value if isinstance(value, str) else canonical_json(value).decode())


def shortened(text: str) -> str:
    """Return a text as far as a table can show it; what is left out is counted."""
    left_out = len(text) - _LONGEST_VALUE
    if left_out <= 0:
        return text
    return f"{text[:_LONGEST_VALUE]}… and {left_out:,} more characters, in the artifact"


def rules_of(feasibility: Mapping[str, Any]) -> list[str]:
    """Return the rules that an evaluation names as hit, wherever a producer puts them."""
    found: dict[str, None] = {}
    for place in (feasibility, feasibility.get("decision"), feasibility.get("safety")):
        if not isinstance(place, Mapping):
            continue
        for name in ("rules_triggered", "rule_hits", "rules"):
            listed = place.get(name)
            if isinstance(listed, list):
                found |= dict.fromkeys(text_of(each) for each in listed[:_MOST_ROWS])
    return list(found)
