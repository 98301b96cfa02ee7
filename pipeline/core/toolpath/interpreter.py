"""Obey the words of a program's lines, as RS274/NGC has them, and draw the moves of the tool.

What a line that is not understood may have changed, the place of the tool or modes, is not known
until the program says it again. A move from or to a place that is not known is neither drawn nor
measured.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Final

from pipeline.core.toolpath.arcs import Spot, arc_points, centre_of_radius, chord_count, sweep_of
from pipeline.core.toolpath.modes import Modes
from pipeline.core.toolpath.moves import LISTED_LIMIT, Drawing, Kind, Place, Point, known
from pipeline.core.toolpath.words import (
    ALL_GROUPS,
    ARCS,
    COORDINATES,
    CYCLES,
    ELSEWHERE,
    FEED_OUT_CYCLES,
    FOLLOWED,
    M_CALLS,
    M_ENDS,
    M_WORDS,
    MAY_MOVE,
    NUMBERED_OFFSETS,
    PECKING_CYCLES,
    PLAIN_LINE,
    ROTARY,
    NotDrawn,
    Words,
    groups_in,
    groups_of,
    words_of,
)

RADIUS_TOLERANCE_MM: Final = 0.05
"""Largest difference of the radii at both ends of an arc, or a thousandth of the radius.

Half of what LinuxCNC accepts (G2, G3: 0.1 mm and a thousandth)."""

RADIUS_TOLERANCE_LIMIT_MM: Final = 1.0
"""Largest of all: an arc of ten metres may not miss its end by a centimetre."""

_NOWHERE: Final[Place] = (None, None, None)
_AXES: Final = "XYZ"
_CENTRES: Final = "IJK"
_MOVING: Final = frozenset("XYZ")
_UNUSED_BY_LINES: Final = frozenset("IJKRQL")
_NEED_A_PLACE: Final = frozenset("IJKR")
# The two axes of a plane and the one across it: seen from the positive end of the third,
# counterclockwise turns the first into the second (NISTIR 6556, 3.5.3).
_PLANES: Final = {"G17": (0, 1, 2), "G18": (2, 0, 1), "G19": (1, 2, 0)}
_LINEAR: Final[dict[str, Kind]] = {"G0": "rapid", "G1": "feed"}


class Interpreter:
    """Obeys the words of a program, line by line: knows its modes and where the tool is.

    Attributes:
        is_over: Whether the program has come to its end (M2, M30).
    """

    def __init__(self, drawing: Drawing) -> None:
        self.is_over = False
        self._drawing = drawing
        self._at: Place = _NOWHERE
        self._is_placed = False
        self._modes = Modes(drawing)
        self._feed = self._noted_feed = self._speed = 0.0
        self._tool: int | None = None
        self._unknown: set[str] = set()
        self._cycle: dict[str, float] = {}
        self._cycle_start: float | None = None

    def _remark(self, what: str) -> None:
        self._drawing.remark(what)

    def lose_all(self) -> None:
        """Forget every mode and the place: a line is not read at all."""
        self._modes.lose(ALL_GROUPS | {COORDINATES})
        self._feed = 0.0
        self._lose_place(_AXES)

    def lose(self, code: str) -> None:
        """Forget what a line that is not obeyed may have changed."""
        self._modes.lose(groups_in(code))
        if "F" in code:
            self._feed = 0.0
        if not MAY_MOVE.isdisjoint(code):
            self._lose_place(_AXES)

    def _lose_place(self, axes: Iterable[str]) -> None:
        before, self._at = self._at, _with(self._at, dict.fromkeys(axes))
        if before != self._at:
            self._drawing.was_lost = True

    def obey(self, code: str) -> None:
        """Do what the code of a line says; where it is not understood, say so."""
        try:
            plain = PLAIN_LINE.fullmatch(code)
            # The long way does the same with a plain line.
            if plain is None or not self._obey_plain(*plain.groups()):
                self._obey(words_of(code))
        except NotDrawn as refused:
            self._remark(str(refused))
            self.lose(code)

    def _obey_plain(
        self, motion: str | None, x: str | None, y: str | None, z: str | None, feed: str | None
    ) -> bool:
        """Move straight, if a straight move is meant; return whether it is."""
        before = self._modes.motion
        code = before if motion is None else f"G{motion[-1]}"
        if code not in _LINEAR:
            return False
        values: dict[str, float] = {}
        if x is not None:
            values["X"] = float(x)
        if y is not None:
            values["Y"] = float(y)
        if z is not None:
            values["Z"] = float(z)
        if feed is not None:
            self._set_feed(float(feed))
        if code != before:
            self._begin(code)
        if values:
            self._go(_LINEAR[code], self._target(values))
        return True

    def _obey(self, words: Words) -> None:
        """Do what the words of a line say, in the order of NISTIR 6556, table 8."""
        codes, values = words
        self._drawing.conditions.obey(words)
        motion = None
        for letter in ROTARY & values.keys():
            self._remark(f"What {letter} turns is not drawn.")
        if codes:
            groups = groups_of(codes)
            motion, once = groups.pop("motion", None), groups.pop("once", None)
            # First the modes: G20 and G21 say how the other words of the line are read.
            for group, code in groups.items():
                self._set_mode(group, code, values)
            if once is not None:
                self._do_once(once, values)
        self._set_speeds(values)
        for code in codes:
            if code[0] == "M":
                self._switch(code)
        if motion is not None:
            self._begin(motion)
        if not _MOVING.isdisjoint(values) or motion in ARCS:
            self._move(values)
        elif not _NEED_A_PLACE.isdisjoint(values):
            raise NotDrawn("I, J, K or R in a line without X, Y and Z is not understood.")
        if not M_ENDS.isdisjoint(codes):
            self.is_over = True

    def _set_mode(self, group: str, code: str, values: dict[str, float]) -> None:
        if code in NUMBERED_OFFSETS:
            code = f"{code} P{values.get('P', 0.0)}"
        before = self._modes.set(group, code)
        match group:
            case "units" | "feed":
                if group == "units" and self._drawing.units is None:
                    self._drawing.units = "inch" if code == "G20" else "mm"
                if code != before:
                    # Controllers differ on what a feed rate of before is in other units.
                    self._feed = 0.0
            case "length" if (before, code) != ("G49", "G49"):
                # The tool stays where it is; its Z in the program is another.
                self._lose_place("Z")
            case "radius" if code != "G40":
                self._remark(f"{code} shifts the tool by its radius: drawn as programmed.")
            case "offset":
                if code != before and self._is_placed:
                    self._remark("Several work offsets (G54 to G59) are drawn over each other.")
                    self._lose_place(_AXES)
            case _ if group not in ALL_GROUPS:
                named = self._named(code)
                raise NotDrawn(f"{named} is not known here: nothing is drawn from its line on.")

    def _do_once(self, code: str, values: dict[str, float]) -> None:
        """Do what a G word without a mode says: the tool, or the coordinates, go elsewhere."""
        axes = [axis for axis in _AXES if axis in values]
        name = code.partition(".")[0]
        if code == "G4":
            # A time, which some controllers call X.
            if axes and (axes != ["X"] or "P" in values):
                raise NotDrawn("A dwell (G4) in a line with X, Y or Z is not understood.")
            values.pop("X", None)
        elif code in ELSEWHERE or name == "G92":
            self._remark(ELSEWHERE[name])
            given = {axis: values.pop(axis) for axis in axes}
            if code == "G92":
                mm = self._modes.mm_per_unit()
                self._at = _with(self._at, {axis: value * mm for axis, value in given.items()})
                self._is_placed = True
            else:
                self._lose_place(given if given and name in {"G28", "G30", "G53"} else _AXES)

    def _set_speeds(self, values: dict[str, float]) -> None:
        if "F" in values:
            self._set_feed(values["F"])
        if "S" in values:
            self._speed = values["S"]
            if self._modes.get("spindle") == "G97":
                self._drawing.add_speed(self._speed)
            else:
                self._speed = 0.0
                self._remark("S where G96 is in force is no speed of the spindle: not among them.")
        if "T" in values:
            self._tool = int(values["T"])

    def _set_feed(self, feed: float) -> None:
        is_inverse = self._modes.get("feed") == "G93"
        self._feed = feed * (1.0 if is_inverse else self._modes.mm_per_unit())

    def _switch(self, code: str) -> None:
        if code == "M6":
            if self._tool is not None:
                self._drawing.add_tool(self._tool)
        elif code in M_CALLS:
            raise NotDrawn("Sub-programs (M97, M98, M99) are not followed.")
        elif code not in M_WORDS and code not in M_ENDS:
            self._remark(f"{self._named(code)} is not known here: what it does is not drawn.")

    def _named(self, code: str) -> str:
        """Return how a word that is not known is called in a remark: so many differ, no more."""
        if len(self._unknown) < LISTED_LIMIT:
            self._unknown.add(code)
        return code if code in self._unknown else "A further word"

    def _begin(self, motion: str) -> None:
        before = self._modes.motion
        if motion not in FOLLOWED:
            raise NotDrawn(f"{motion} is not followed: its line is not drawn.")
        if motion in CYCLES and before not in CYCLES:
            self._cycle_start = self._at[2]
        if motion != before:
            self._cycle = {}
        self._modes.motion = motion

    def _move(self, values: dict[str, float]) -> None:
        """Move as the motion in force says."""
        motion = self._modes.motion
        if motion in _LINEAR:
            if not _UNUSED_BY_LINES.isdisjoint(values):
                raise NotDrawn("A straight move with I, J, K, R, Q or L is not understood.")
            self._go(_LINEAR[motion], self._target(values))
        elif motion in ARCS:
            self._arc(self._target(values), values, is_clockwise=motion == "G2")
        elif motion in CYCLES:
            self._drill(motion, values)
        else:
            raise NotDrawn("Coordinates without a motion (G0 to G3 or a cycle) are not drawn.")

    def _target(self, values: dict[str, float]) -> Place:
        """Return where the X, Y and Z words of a line lead to."""
        mm, is_absolute = self._modes.frame()
        if not (self._is_placed or is_absolute or self._drawing.was_lost):
            self._remark("The program begins with distances (G91): drawn as if from X0 Y0 Z0.")
            self._at = (0.0, 0.0, 0.0)
        self._is_placed = True
        x, y, z = self._at
        if is_absolute:
            x = values["X"] * mm if "X" in values else x
            y = values["Y"] * mm if "Y" in values else y
            z = values["Z"] * mm if "Z" in values else z
            return x, y, z
        return (
            None if x is None else x + values.get("X", 0.0) * mm,
            None if y is None else y + values.get("Y", 0.0) * mm,
            None if z is None else z + values.get("Z", 0.0) * mm,
        )

    def _go(self, kind: Kind, target: Place) -> None:
        """Move straight to `target`."""
        start, end = known(self._at), known(target)
        if start is None or end is None:
            self._drawing.note_unplaced(self._at, target)
            self._add(kind, (), 0.0, target)
        else:
            self._add(kind, (start, end), math.dist(start, end), target)

    def _add(self, kind: Kind, points: tuple[Point, ...], length: float, end: Place) -> None:
        """Take note of a move that ends at `end`."""
        self._at = end
        if self._drawing.add(kind, points, length) and kind != "rapid":
            self._drawing.add_seconds(self._seconds(length))

    def _seconds(self, length: float) -> float:
        mode, rate = self._modes.get("feed"), self._feed
        if mode == "G93" and rate > 0:
            self._drawing.conditions.say("F", rate)
            return 60.0 / rate
        if mode == "G95":
            rate *= self._speed
        if rate <= 0 or mode is None:
            self._remark("Moves without a feed rate (F) are not in the time.")
            return 0.0
        if rate != self._noted_feed:
            self._noted_feed = rate
            self._drawing.add_feed(rate)
        return length / rate * 60.0

    def _arc(self, target: Place, values: dict[str, float], *, is_clockwise: bool) -> None:
        turns = values.get("P", 1.0)
        if turns < 1 or turns % 1 or not {"Q", "L"}.isdisjoint(values):
            raise NotDrawn("An arc with Q, L or an odd number of turns (P) is not understood.")
        start, end = known(self._at), known(target)
        if start is None or end is None:
            self._add("arc", (), 0.0, target)
            return
        plane = _PLANES[self._modes.known("plane")]
        first, second, across = plane
        a, b = (start[first], start[second]), (end[first], end[second])
        centre = self._centre(a, b, values, is_clockwise=is_clockwise)
        radius = math.dist(a, centre)
        tolerance = min(max(RADIUS_TOLERANCE_MM, radius / 1000), RADIUS_TOLERANCE_LIMIT_MM)
        if not radius or abs(radius - math.dist(b, centre)) > tolerance:
            raise NotDrawn("An arc that does not end on its circle is not drawn.")
        more_turns = int(turns) - 1
        sweep = sweep_of(a, b, centre, is_clockwise=is_clockwise, more_turns=more_turns)
        count = chord_count(radius, sweep)
        if not self._drawing.has_room(count):
            return
        points = arc_points((start, end), plane, centre, sweep, count)
        length = math.hypot(radius * sweep, end[across] - start[across])
        self._add("arc", points, length, target)

    def _centre(self, a: Spot, b: Spot, values: dict[str, float], *, is_clockwise: bool) -> Spot:
        """Return the centre of an arc, from R or from the two of I, J and K of its plane."""
        mm = self._modes.mm_per_unit()
        names = [_CENTRES[axis] for axis in _PLANES[self._modes.known("plane")][:2]]
        given = {name for name in _CENTRES if name in values}
        if "R" in values and not given:
            radius = values["R"] * mm
            centre = centre_of_radius(
                a, b, radius, is_clockwise=is_clockwise, tolerance=RADIUS_TOLERANCE_MM
            )
            if centre is None:
                raise NotDrawn("An arc whose radius fits no circle through its ends is not drawn.")
            return centre
        if "R" in values or not given or not given <= {*names}:
            raise NotDrawn("An arc needs a centre in its plane (I, J, K) or a radius (R).")
        is_absolute = self._modes.known("centre") == "G90.1"
        if is_absolute and len(given) < len(names):
            raise NotDrawn("An arc needs both words of its centre in G90.1.")
        u, v = (values.get(name, 0.0) * mm for name in names)
        return (u, v) if is_absolute else (a[0] + u, a[1] + v)

    def _drill(self, cycle: str, values: dict[str, float]) -> None:
        """Drill holes by a cycle (NISTIR 6556, 3.5.16), each as one plunge."""
        if self._modes.known("plane") != "G17":
            raise NotDrawn("Cycles in another plane than G17 are not drawn.")
        mm = self._modes.mm_per_unit()
        self._cycle |= {name: values[name] * mm for name in "ZR" if name in values}
        repeats = values.get("L", 1.0)
        if len(self._cycle) < len("ZR") or repeats < 1 or repeats % 1:
            raise NotDrawn("A cycle without depth (Z), clearance (R) or repeats (L) is not drawn.")
        if not {*_CENTRES}.isdisjoint(values):
            raise NotDrawn("A cycle with I, J or K, which may be repeats, is not drawn.")
        if cycle in PECKING_CYCLES:
            self._remark("Pecks (G73, G83) are drawn as one plunge.")
        began = self._cycle_start
        clear, bottom = self._cycle["R"], self._cycle["Z"]
        if self._modes.known("distance") == "G91":
            if began is None:
                raise NotDrawn("A cycle with distances (G91) from an unknown height is not drawn.")
            clear += began
            bottom += clear
        if bottom > clear:
            raise NotDrawn("A cycle whose depth (Z) is above its clearance (R) is not drawn.")
        leave: float | None = clear
        if self._modes.known("return") == "G98":
            leave = None if began is None else max(began, clear)
        hole = {name: values[name] for name in "XY" if name in values}
        # Four moves a hole, or five from below the clearance.
        if not self._drawing.has_room(int(repeats) * 4):
            return
        for _ in range(int(repeats)):
            x, y, z = self._target(hole)
            if z is not None and z < clear:
                z = clear
                self._go("rapid", (*self._at[:2], clear))
            self._go("rapid", (x, y, z))
            self._go("rapid", (x, y, clear))
            self._go("feed", (x, y, bottom))
            self._go("feed" if cycle in FEED_OUT_CYCLES else "rapid", (x, y, leave))


def _with(place: Place, changed: Mapping[str, float | None]) -> Place:
    x, y, z = place
    return changed.get("X", x), changed.get("Y", y), changed.get("Z", z)
