"""The modes of a program: the G word of each modal group that is in force, where it is known."""

from collections.abc import Iterable
from typing import Final

from pipeline.core.toolpath.moves import Drawing
from pipeline.core.toolpath.words import COORDINATES, NotDrawn

MM_PER_INCH: Final = 25.4

_DEFAULTS: Final = {
    "units": "G21",
    "distance": "G90",
    "plane": "G17",
    "centre": "G91.1",
    "feed": "G94",
    "spindle": "G97",
    "length": "G49",
    "offset": "G54",
    "return": "G98",
    COORDINATES: "as programmed",
}
_NOT_SAID: Final = {
    "units": "Lines before the program names units (G20, G21) are read as mm.",
    "distance": "Lines before the program says G90 or G91 are read as G90.",
    "plane": "Arcs before the program names a plane (G17, G18, G19) are read as G17.",
}


class Modes:
    """What is in force.

    A group whose G word a line may have changed is not known until the program names one again.

    Attributes:
        motion: In force; None where there is none, or it is not known.
    """

    def __init__(self, drawing: Drawing) -> None:
        self.motion: str | None = None
        self._drawing = drawing
        self._codes = _DEFAULTS.copy()
        self._not_said = dict(_NOT_SAID)
        self._frame: tuple[float, bool] | None = None

    def set(self, group: str, code: str) -> str | None:
        """Put `code` in force; return what was before, None where that is not known."""
        before = self._codes.get(group)
        self._codes[group] = code
        self._not_said.pop(group, None)
        self._frame = None
        return before

    def lose(self, groups: Iterable[str]) -> None:
        """Forget what is in force of these groups."""
        self._frame = None
        for group in groups:
            self._codes.pop(group, None)
            if group == "motion":
                self.motion = None

    def get(self, group: str) -> str | None:
        """Return what is in force of a group; None where it is not known."""
        return self._codes.get(group)

    def known(self, group: str) -> str:
        """Return what is in force of a group; a default that it has is named in a remark.

        Raises:
            NotDrawn: It is not known.
        """
        code = self._codes.get(group)
        if code is None:
            raise NotDrawn("Modes that a line before may have set are not known: not drawn.")
        if group in self._not_said:
            self._drawing.remark(self._not_said[group])
        return code

    def mm_per_unit(self) -> float:
        """Return how long a unit of the program is.

        Raises:
            NotDrawn: It is not known.
        """
        return MM_PER_INCH if self.known("units") == "G20" else 1.0

    def frame(self) -> tuple[float, bool]:
        """Return how long a unit is in mm, and whether X, Y and Z are places (G90).

        Raises:
            NotDrawn: It is not known.
        """
        if self._frame is not None:
            return self._frame
        self.known(COORDINATES)
        frame = self.mm_per_unit(), self.known("distance") == "G90"
        if self._not_said.keys().isdisjoint({"units", "distance"}):
            self._frame = frame
        return frame
