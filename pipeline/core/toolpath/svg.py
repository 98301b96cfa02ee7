"""A toolpath as an SVG picture: from above and at an angle, with the words that belong to it.

Nothing in it acts or is fetched. Kinds of moves differ by dashes and width, not by colour alone.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from html import escape
from textwrap import wrap
from typing import Any, Final, NamedTuple, TypeAlias

from pipeline.core.toolpath.modes import MM_PER_INCH
from pipeline.core.toolpath.moves import Box, Kind, Move, Point, Toolpath, joined

VIEW_SIZE: Final = 480
"""Width and height of one view, in units of the picture."""

MARGIN: Final = 24
CLOSE: Final = 0.5
"""Spots of a picture that are closer than this, along both axes together, look like one."""

TEXT_WIDTH_CHARACTERS: Final = 140
LINE_HEIGHT: Final = 17
AS_PROGRAMMED: Final = (
    "As programmed: no stock, no machine and no collisions; rapid moves are drawn straight."
)

NOT_WHOLE: Final = "The program has no end here: what is drawn may be a part of it."
_SAID_APART: Final = ("Not drawn", "Time", "Tools", "Feed rates", "Spindle")

_ROOT_6: Final = math.sqrt(6)
_ROOT_2: Final = math.sqrt(2)
_STYLES: Final[dict[Kind, tuple[str, str]]] = {
    "rapid": ("rapid move (G0)", 'stroke="#b45309" stroke-width="0.9" stroke-dasharray="5 4"'),
    "feed": ("straight cut (G1)", 'stroke="#1d4ed8" stroke-width="1.1"'),
    "arc": ("arc (G2, G3)", 'stroke="#0f766e" stroke-width="1.7"'),
}

Projection: TypeAlias = Callable[[Point], tuple[float, float]]


def from_above(point: Point) -> tuple[float, float]:
    """Look along -Z: X to the right, Y up."""
    return point[0], -point[1]


def at_an_angle(point: Point) -> tuple[float, float]:
    """Look along the diagonal of a cube (isometric): Z up, X to the right, Y to the left."""
    x, y, z = point
    return (x - y) / _ROOT_2, (-x - y - 2 * z) / _ROOT_6


_VIEWS: Final[tuple[tuple[str, Projection], ...]] = (
    ("From above: X to the right, Y up", from_above),
    ("At an angle: Z up", at_an_angle),
)


def svg_of(toolpath: Toolpath, title: str) -> str:
    """Return the picture of a toolpath, which says in words what it shows and what it does not."""
    said = [*sentences(toolpath)]
    lines = [line for each in said for line in wrap(each, TEXT_WIDTH_CHARACTERS)]
    views = "".join(
        f'<g transform="translate({number * VIEW_SIZE} 0)">{_view(toolpath.moves, name, project)}'
        "</g>"
        for number, (name, project) in enumerate(_VIEWS)
    )
    texts = "".join(
        f'<text x="{MARGIN}" y="{VIEW_SIZE + (number + 2) * LINE_HEIGHT}">{escape(line)}</text>'
        for number, line in enumerate(lines)
    )
    width, height = VIEW_SIZE * len(_VIEWS), VIEW_SIZE + (len(lines) + 3) * LINE_HEIGHT
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'font-family="sans-serif" font-size="13"><title>{escape(title)}</title>'
        f"<desc>{escape(' '.join(said))}</desc>"
        f'<rect width="{width}" height="{height}" fill="#fff"/>{views}{_legend()}{texts}</svg>\n'
    )


def sentences(toolpath: Toolpath) -> Iterator[str]:
    """Say what is drawn, and what is not."""
    yield AS_PROGRAMMED
    if toolpath.box is None:
        yield "No move is drawn."
    else:
        yield (
            f"{toolpath.move_count:,} moves, an arc counted by its chords, in a box of "
            f"{_size(toolpath.box, 1.0)} mm{_in_inches(toolpath)} (X by Y by Z)."
        )
    yield f"{toolpath.cut_mm:,.1f} mm at feed rate, {toolpath.rapid_mm:,.1f} mm of rapid moves."
    summary = toolpath.summary()
    facts = dict(facts_of(summary))
    yield " ".join(f"{name}: {facts[name]}." for name in ("Lines", *_SAID_APART) if name in facts)
    if not toolpath.is_whole:
        yield NOT_WHOLE
    yield from remarks_of(summary)


def facts_of(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield names and values of what is known of a program, for a person.

    Args:
        summary: The document of its drawing; the paths are not needed.
    """
    is_inch = summary["units"] == "inch"
    unit = {"mm": "", "inch": ", programmed in inches", None: ", the program names no unit"}
    box = summary["box"]
    if box is not None:
        sizes = [high - low for low, high in zip(box["low"], box["high"], strict=True)]
        shown = [" by ".join(f"{each:,.2f}" for each in sizes) + " mm"]
        if is_inch:
            shown.append(" by ".join(f"{each / MM_PER_INCH:,.3f}" for each in sizes) + " in")
        yield "Size", f"{', '.join(shown)} (X by Y by Z){unit[summary['units']]}"
    yield "Lines", f"{summary['line_count']:,}"
    not_drawn = summary["not_drawn_count"]
    yield "Moves", f"{summary['move_count']:,}, an arc counted by its chords"
    if not_drawn:
        yield "Not drawn", f"{not_drawn:,} of the moves: the program has not said from or to where"
    yield "At feed rate", _length(summary["cut_mm"], is_inch=is_inch)
    yield "Time", f"{summary['cut_seconds'] / 60:,.1f} minutes at feed rate"
    yield "Rapid", _length(summary["rapid_mm"], is_inch=is_inch)
    yield "Tools", ", ".join(map(str, summary["tools"])) or "none named"
    yield "Feed rates", _feeds(summary["feeds_mm_min"], is_inch=is_inch)
    speeds = ", ".join(f"{each:,.0f}" for each in summary["spindle_rpm"])
    yield "Spindle", f"{speeds} rpm" if speeds else "no speed named"
    if not summary["is_whole"]:
        yield "Not whole", NOT_WHOLE


def remarks_of(summary: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is not drawn, or not as a machine would move, with its lines."""
    for remark in summary["remarks"]:
        lines, number = remark["lines"], remark["count"]
        count = f"{number:,} lines" if number > 1 else "1 line"
        more = ", ..." if number > len(lines) else ""
        yield f"{remark['what']} ({count}: {', '.join(map(str, lines))}{more})"


def _length(mm: float, *, is_inch: bool) -> str:
    return f"{mm:,.1f} mm" + (f", {mm / MM_PER_INCH:,.2f} in" if is_inch else "")


def _feeds(mm_min: Sequence[float] | None, *, is_inch: bool) -> str:
    if mm_min is None:
        return "none"
    shown = " to ".join(f"{each:,.1f}" for each in dict.fromkeys(mm_min)) + " mm/min"
    if not is_inch:
        return shown
    inches = " to ".join(f"{each / MM_PER_INCH:,.2f}" for each in dict.fromkeys(mm_min))
    return f"{inches} in/min, {shown}"


def _in_inches(toolpath: Toolpath) -> str:
    if toolpath.box is None or toolpath.units != "inch":
        return ""
    return f", {_size(toolpath.box, MM_PER_INCH)} in"


def _size(box: Box, unit_mm: float) -> str:
    return " by ".join(f"{(high - low) / unit_mm:,.2f}" for low, high in zip(*box, strict=True))


def _legend() -> str:
    shown = ""
    for number, (name, style) in enumerate(_STYLES.values()):
        x, y = MARGIN + number * 180, VIEW_SIZE + 10
        shown += f'<path d="M{x} {y}h36" fill="none" {style}/>'
        shown += f'<text x="{x + 42}" y="{y + 4}">{name}</text>'
    return shown


class _Frame(NamedTuple):
    """How a point that is projected comes into its view."""

    scale: float
    x: float
    y: float


def _view(moves: list[Move], name: str, project: Projection) -> str:
    seen = [
        (run[0].kind, [*map(project, (run[0].points[0], *_ends(run)))]) for run in joined(moves)
    ]
    frame = _frame_of([spot for _, spots in seen for spot in spots])
    drawn = "".join(
        f'<path d="{outline}" fill="none" stroke-linejoin="round" stroke-linecap="round" {style}/>'
        for kind, (_, style) in _STYLES.items()
        if (outline := _outline((spots for each, spots in seen if each == kind), frame))
    )
    return f'{drawn}<text x="{MARGIN}" y="16" fill="#444">{name}</text>'


def _ends(run: list[Move]) -> Iterator[Point]:
    return (end for move in run for end in move.points[1:])


def _frame_of(spots: list[tuple[float, float]]) -> _Frame:
    if not spots:
        return _Frame(1.0, 0.0, 0.0)
    xs, ys = zip(*spots, strict=True)
    left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
    room = VIEW_SIZE - 2 * MARGIN
    scale = room / (max(right - left, bottom - top) or 1.0)
    half = VIEW_SIZE / 2
    return _Frame(scale, half - scale * (left + right) / 2, half - scale * (top + bottom) / 2)


def _outline(runs: Iterable[list[tuple[float, float]]], frame: _Frame) -> str:
    """Return the data of an SVG path; spots too close to be told apart are one."""
    scale, x0, y0 = frame
    parts: list[str] = []
    at: tuple[float, float] | None = None
    for spots in runs:
        shown = [(round(x * scale + x0, 1), round(y * scale + y0, 1)) for x, y in spots]
        first, last = shown[0], shown[-1]
        if first != at:
            parts.append(f"M{first[0]} {first[1]}")
        if all(spot == first for spot in shown):
            # Down or up, as seen from above: a round dot.
            parts.append("h0")
        at = first
        for spot in shown[1:]:
            is_last = spot is last
            if spot != at and (is_last or abs(spot[0] - at[0]) + abs(spot[1] - at[1]) >= CLOSE):
                parts.append(f"L{spot[0]} {spot[1]}")
                at = spot
    return "".join(parts)
