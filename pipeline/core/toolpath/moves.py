"""What a program describes: its moves, what is not drawn of it, and both as a document.

Coordinates are millimetres in the program's own coordinate system.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, TypeAlias, cast

from pipeline.core.toolpath.words import GROUPS, M_ENDS, Words

DRAWING_VERSION: Final = 2
"""Of the document that the same text gives: a change that alters it raises this."""

ROUNDED_DIGITS: Final = 3
"""Of a point in the document: a thousandth of a millimetre, a tenth of what the chords allow."""

MOVE_LIMIT: Final = 400_000
"""Most straight pieces of all moves together; an arc counts its chords."""

LISTED_LIMIT: Final = 100
"""Most tools, speeds of a spindle, and words that are not known, each named once."""

_NOT_PLACED: Final = "Moves from or to a place that is not known are not drawn."

REMARK_LINES: Final = 20
"""Most lines that a remark names; all are counted."""

Kind = Literal["rapid", "feed", "arc"]
Point: TypeAlias = tuple[float, float, float]
Place: TypeAlias = tuple[float | None, float | None, float | None]
"""Where the tool is, in mm; None on an axis whose place the program has not said."""


class Move(NamedTuple):
    """One move of the tool.

    Attributes:
        kind: Rapid (G0), feed (G1) or arc (G2, G3).
        line: Of the program, from 1.
        points: Start, then the ends of its chords, in mm; a line has two points. Empty where the
            program has not said where the move starts or ends.
    """

    kind: Kind
    line: int
    points: tuple[Point, ...]


@dataclass(slots=True)
class Remark:
    """Something that is not drawn, or not as a machine would move.

    Attributes:
        what: A sentence.
        count: How many lines have it.
        lines: The first of them.
        last_line: The last of all.
    """

    what: str
    count: int = 0
    lines: list[int] = field(default_factory=list)
    last_line: int = -1


class Box(NamedTuple):
    """The least box, parallel to the axes, around points; in mm."""

    low: Point
    high: Point


@dataclass(frozen=True, slots=True)
class Toolpath:
    """What a program describes.

    Attributes:
        moves: In the order of the program.
        box: Around every move that is drawn; None where none is.
        cut_box: Around those at feed rate.
        rapid_mm: Length of the rapid moves.
        cut_mm: Length of the moves at feed rate.
        cut_seconds: Time of those at their feed rates. Rapid moves and dwells are not in it: their
            time is the machine's.
        tools: Numbers, in the order of their first change (M6).
        feeds_mm_min: The lowest and the highest feed rate of a move; None without one.
        spindle_rpm: Speeds, in the order of first use.
        units: Those that the program names first; None where it names none.
        line_count: Of the text.
        remarks: What is not understood or not drawn.
        is_whole: Whether the end of the program was reached within the limits.
        conditions_sha256: Of what the program says beside its moves, and before which of them.
    """

    moves: list[Move]
    box: Box | None
    cut_box: Box | None
    rapid_mm: float
    cut_mm: float
    cut_seconds: float
    tools: list[int]
    feeds_mm_min: tuple[float, float] | None
    spindle_rpm: list[float]
    units: Literal["mm", "inch"] | None
    line_count: int
    remarks: list[Remark]
    is_whole: bool
    conditions_sha256: str

    @property
    def move_count(self) -> int:
        """Straight pieces: an arc counts its chords, and a move that is not drawn is one."""
        return sum(max(len(move.points) - 1, 1) for move in self.moves)

    @property
    def not_drawn_count(self) -> int:
        """Moves whose start or end the program has not said, the first approach among them."""
        return sum(not move.points for move in self.moves)

    def document(self) -> dict[str, Any]:
        """Return the toolpath as JSON has it; lengths in mm, points to a thousandth of it."""
        return {**self.summary(), "paths": list(map(_path, joined(self.moves)))}

    def summary(self) -> dict[str, Any]:
        """Return the document without its paths."""
        return {
            "drawing_version": DRAWING_VERSION,
            "units": self.units,
            "is_whole": self.is_whole,
            "line_count": self.line_count,
            "move_count": self.move_count,
            "not_drawn_count": self.not_drawn_count,
            "box": _box_document(self.box),
            "cut_box": _box_document(self.cut_box),
            "cut_mm": _rounded(self.cut_mm),
            "rapid_mm": _rounded(self.rapid_mm),
            "cut_seconds": _rounded(self.cut_seconds),
            "tools": self.tools,
            "feeds_mm_min": self.feeds_mm_min and [_rounded(feed) for feed in self.feeds_mm_min],
            "spindle_rpm": self.spindle_rpm,
            "conditions_sha256": self.conditions_sha256,
            "remarks": [
                {"what": each.what, "count": each.count, "lines": each.lines}
                for each in self.remarks
            ],
        }


def known(place: Place) -> Point | None:
    """Return a place that is known on each axis; None where it is not."""
    return None if None in place else cast("Point", place)


def box_of(points: Sequence[Point]) -> Box | None:
    """Return the box around `points`; None where there are none."""
    if not points:
        return None
    x, y, z = zip(*points, strict=True)
    return Box((min(x), min(y), min(z)), (max(x), max(y), max(z)))


class Conditions:
    """What a program says beside its moves: feeds, speeds, tools, offsets, switches and stops.

    Programs of the same moves and conditions cut alike; what is said twice counts once.
    """

    def __init__(self) -> None:
        self._said: dict[str, str] = dict(_SAID_BY_NOBODY)
        self._next: dict[str, str] = {}
        self._hash = hashlib.sha256()

    def say(self, name: str, value: object) -> None:
        """Take note of a value in force from the next move on."""
        text = str(value)
        if self._said.get(name) != text:
            self._next[name] = text
        else:
            self._next.pop(name, None)

    def obey(self, words: Words) -> None:
        """Take note of the words of a line, but for those of its moves and its feed rate."""
        codes, values = words
        beside = [code for code in codes if GROUPS.get(code) not in _OF_MOVES | {*M_ENDS}]
        for code in beside:
            if code in _ONCE:
                self.say(code, f"{self._next.get(code) or self._said.get(code, '')}.")
            else:
                self.say(GROUPS.get(code) or _SWITCHES.get(code, code), code)
        for letter in values.keys() - _LETTERS_OF_MOVES:
            # A tool and its offsets stay; of any other word its own line says what it means.
            self.say(letter if letter in "STHD" else f"{beside} {letter}", values[letter])

    def hold_for(self, piece: int) -> None:
        """Note what changed before the straight piece of this number."""
        if self._next:
            self._hash.update(repr((piece, sorted(self._next.items()))).encode())
            self._said |= self._next
            self._next.clear()

    def sha256(self) -> str:
        """Return the hash of all that was noted."""
        return self._hash.hexdigest()


_SAID_BY_NOBODY: Final = {
    "radius": "G40",
    "feed": "G94",
    "spindle": "G97",
    "length": "G49",
    "offset": "G54",
    "return": "G98",
}
_ONCE: Final = frozenset({"M0", "M1", "M6", "G4"})
"""What happens each time that it is said."""
_OF_MOVES: Final = frozenset({"motion", "plane", "units", "distance", "centre"})
_LETTERS_OF_MOVES: Final = frozenset("XYZIJKRNF")
_SWITCHES: Final = {f"M{code}": "spindle on" for code in (3, 4, 5)} | {
    f"M{code}": "coolant" for code in (7, 8, 9)
}
"""M words that end each other."""


class Drawing:
    """Collects the moves of a program.

    Attributes:
        line: Of the program, whose moves and remarks come next.
        units: Those that the program names first.
        conditions: What the program says beside its moves.
        was_lost: Whether the place of the tool was known and no longer is, at some line.
        is_stopped: Whether a limit was reached.
    """

    def __init__(self) -> None:
        self.line = 1
        self.units: Literal["mm", "inch"] | None = None
        self.conditions = Conditions()
        self.was_lost = self.is_stopped = False
        self._moves: list[Move] = []
        self._piece_count = 0
        self._rapid_mm = self._cut_mm = self._cut_seconds = 0.0
        # Dictionaries keep the order.
        self._remarks: dict[str, Remark] = {}
        self._tools: dict[int, None] = {}
        self._speeds: dict[float, None] = {}
        self._feeds: tuple[float, float] | None = None

    def remark(self, what: str) -> None:
        """Take note that something of this line is not drawn as a machine would move."""
        remark = self._remarks.setdefault(what, Remark(what))
        if remark.last_line != self.line:
            remark.last_line = self.line
            remark.count += 1
            if len(remark.lines) < REMARK_LINES:
                remark.lines.append(self.line)

    def stop(self, why: str) -> None:
        """Draw no further."""
        self.remark(why)
        self.is_stopped = True

    def has_room(self, pieces: int) -> bool:
        """Return whether so many straight pieces more may be drawn; stop where not."""
        if self._piece_count + pieces <= MOVE_LIMIT:
            return True
        self.stop(f"Only the first {self._piece_count:,} moves are drawn.")
        return False

    def add(self, kind: Kind, points: tuple[Point, ...], length: float) -> bool:
        """Take note of a move of `length` mm; return whether it is drawn."""
        pieces = len(points) - 1 if points else 1
        if not self.has_room(pieces):
            return False
        self.conditions.hold_for(self._piece_count)
        self._piece_count += pieces
        self._moves.append(Move(kind, self.line, points))
        if kind == "rapid":
            self._rapid_mm += length
        else:
            self._cut_mm += length
        # The first approach begins wherever the tool happens to be.
        if not points and (kind != "rapid" or self.was_lost):
            self.remark(_NOT_PLACED)
        return bool(points)

    def note_unplaced(self, start: Place, end: Place) -> None:
        """Name a move that is not drawn, unless it is an approach: one axis after the other."""
        ends = zip(start, end, strict=True)
        if any(a is not None and b is not None and a != b for a, b in ends):
            self.remark(_NOT_PLACED)

    def add_seconds(self, seconds: float) -> None:
        """Take note of the time of a move."""
        self._cut_seconds += seconds

    def add_feed(self, mm_min: float) -> None:
        """Take note of a feed rate at which something moves."""
        self.conditions.say("F", mm_min)
        low, high = self._feeds or (mm_min, mm_min)
        self._feeds = (min(low, mm_min), max(high, mm_min))

    def add_tool(self, number: int) -> None:
        """Take note of a change of the tool."""
        self._tools.setdefault(number)
        self._leave_out(self._tools)

    def add_speed(self, rpm: float) -> None:
        """Take note of a speed of the spindle."""
        self._speeds.setdefault(rpm)
        self._leave_out(self._speeds)

    def _leave_out(self, listed: dict[int, None] | dict[float, None]) -> None:
        if len(listed) > LISTED_LIMIT:
            listed.popitem()
            self.remark(f"Only the first {LISTED_LIMIT} tools and speeds are listed.")

    def toolpath(self, line_count: int, *, is_over: bool) -> Toolpath:
        """Return what was drawn.

        Args:
            line_count: Of the text.
            is_over: Whether the program has its end.
        """
        self.line = line_count
        self.conditions.hold_for(self._piece_count)
        if not is_over and not self.is_stopped:
            self.remark("The text has no end of the program (M2, M30 or %).")
        rapid_box = box_of(
            [at for move in self._moves if move.kind == "rapid" for at in move.points]
        )
        cut_box = box_of([at for move in self._moves if move.kind != "rapid" for at in move.points])
        return Toolpath(
            self._moves,
            box_of([corner for box in (rapid_box, cut_box) if box is not None for corner in box]),
            cut_box,
            self._rapid_mm,
            self._cut_mm,
            self._cut_seconds,
            list(self._tools),
            self._feeds,
            list(self._speeds),
            self.units,
            line_count,
            list(self._remarks.values()),
            is_over and not self.is_stopped,
            self.conditions.sha256(),
        )


def _rounded(value: float) -> float:
    # Zero has no sign here: -0.0 is the same place.
    return round(value, ROUNDED_DIGITS) + 0.0


def _box_document(box: Box | None) -> dict[str, list[float]] | None:
    if box is None:
        return None
    return {
        "low": [_rounded(each) for each in box.low],
        "high": [_rounded(each) for each in box.high],
    }


def joined(moves: Iterable[Move]) -> Iterator[list[Move]]:
    """Yield runs of moves of one kind that join end to start; one that is not drawn ends a run."""
    run: list[Move] = []
    for move in moves:
        if run and not (
            move.points and move.kind == run[-1].kind and move.points[0] == run[-1].points[-1]
        ):
            yield run
            run = []
        if move.points:
            run.append(move)
    if run:
        yield run


def _path(run: Sequence[Move]) -> dict[str, Any]:
    """Return the moves of a run as one path, with the line of each straight piece of it."""
    lines: list[int] = []
    points = [*map(_rounded, run[0].points[0])]
    for _, line, (_, *ends) in run:
        lines += [line] * len(ends)
        for end in ends:
            points += map(_rounded, end)
    return {"kind": run[0].kind, "line": run[0].line, "lines": lines, "points": points}
