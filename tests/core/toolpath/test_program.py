"""The moves of a program: every word that is known, and every one that is only named."""

import math
import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core import toolpath as program
from pipeline.core.toolpath import moves, read_toolpath
from pipeline.core.toolpath.moves import REMARK_LINES, Box, Point, Toolpath

BEGIN = "G21 G90 G17 F600\nG0 X0 Y0 Z5\n"
SQUARE = f"{BEGIN}G1 Z-1\nX10\nY10\nX0\nY0\nG0 Z5\nM30\n"


def path(*lines: str) -> Toolpath:
    """Return the toolpath of lines after a begin at X0 Y0 Z5, with an end."""
    return read_toolpath(BEGIN + "\n".join([*lines, "M30"]))


def ends(toolpath: Toolpath) -> list[tuple[str, tuple[float, ...]]]:
    """Return kind and end of each drawn move, rounded to a micrometre."""
    return [
        (move.kind, tuple(round(axis, 3) + 0.0 for axis in move.points[-1]))
        for move in toolpath.moves
        if move.points
    ]


def said(toolpath: Toolpath) -> dict[str, list[int]]:
    """Return the lines of each remark."""
    return {remark.what: remark.lines for remark in toolpath.remarks}


def test_modal_lines_move() -> None:
    assert ends(path("G1 X1 Y2", "X3", "Y4", "Z-1")) == [
        ("feed", (1, 2, 5)),
        ("feed", (3, 2, 5)),
        ("feed", (3, 4, 5)),
        ("feed", (3, 4, -1)),
    ]


def test_the_first_place_has_no_start_and_is_not_drawn() -> None:
    toolpath = read_toolpath("G21\nG0 Z5\nG0 X10 Y10\nG1 X20 F100\nM30")
    assert [bool(move.points) for move in toolpath.moves] == [False, False, True]
    assert toolpath.rapid_mm == 0
    assert toolpath.box == Box((10, 10, 5), (20, 10, 5))
    assert (toolpath.move_count, toolpath.not_drawn_count) == (3, 2)
    assert list(said(toolpath)) == ["Lines before the program says G90 or G91 are read as G90."]


def test_rapid_moves_before_the_place_is_known_are_named() -> None:
    lines = ("G21 G90", "G0 X0 Y0", "G0 X500 Y500", "G0 X-900", "G0 Z5", "G1 X1 F100", "M30")
    toolpath = read_toolpath("\n".join(lines))
    assert (toolpath.move_count, toolpath.not_drawn_count) == (5, 4)
    assert said(toolpath) == {"Moves from or to a place that is not known are not drawn.": [3, 4]}


def test_lengths_times_feeds_tools_and_speeds() -> None:
    toolpath = path("T3 M6", "S18000 M3", "G1 X60 F600", "G1 X0 F300", "G0 Z10", "T1 M6")
    assert toolpath.cut_mm == 120
    assert toolpath.cut_seconds == pytest.approx(6 + 12)
    assert toolpath.rapid_mm == 5
    assert toolpath.feeds_mm_min == (300, 600)
    assert toolpath.tools == [3, 1]
    assert toolpath.spindle_rpm == [18000]
    assert toolpath.is_whole


def test_inches_become_millimetres_from_their_line_on() -> None:
    toolpath = read_toolpath("G20 G90 F10\nG0 X0 Y0 Z0\nG1 X1\nG21 X0\nM2")
    assert ends(toolpath) == [("feed", (25.4, 0, 0)), ("feed", (0, 0, 0))]
    assert toolpath.units == "inch"
    assert toolpath.feeds_mm_min == (254, 254)


def test_distances_add_up() -> None:
    assert ends(path("G91", "G1 X1 Y1", "X1", "G90 X0"))[-2:] == [
        ("feed", (2, 1, 5)),
        ("feed", (0, 1, 5)),
    ]


def test_a_program_that_begins_with_distances_is_drawn_as_if_from_zero_and_says_so() -> None:
    toolpath = read_toolpath("G21 G91 F100\nG1 X1\nX1\nM2")
    assert ends(toolpath) == [("feed", (1, 0, 0)), ("feed", (2, 0, 0))]
    assert "The program begins with distances (G91): drawn as if from X0 Y0 Z0." in said(toolpath)


@pytest.mark.parametrize(
    ("line", "middle"),
    [
        ("G2 X10 Y0 I5 J0", (5, 5, 5)),
        ("G3 X10 Y0 I5 J0", (5, -5, 5)),
        ("G2 X10 Y0 R5", (5, 5, 5)),
        ("G3 X10 R5", (5, -5, 5)),
        ("G90.1 G2 X10 Y0 I5 J0", (5, 5, 5)),
        ("G18 G2 X10 I5 K0", (5, 0, 0)),
        ("G18 G3 X10 I5 K0", (5, 0, 10)),
        ("G19 G2 Y10 J5 K0", (0, 5, 10)),
        ("G19 G3 Y10 J5 K0", (0, 5, 0)),
    ],
)
def test_half_circles(line: str, middle: tuple[float, float, float]) -> None:
    toolpath = path(line)
    (arc,) = [move for move in toolpath.moves if move.kind == "arc"]
    assert toolpath.cut_mm == pytest.approx(math.pi * 5)
    assert min(math.dist(point, middle) for point in arc.points) < 0.5
    assert not toolpath.remarks


def test_g18_turns_as_seen_from_the_positive_y_axis() -> None:
    # Seen from there Z points right and X up; clockwise from below its centre goes left, to -Z.
    (arc,) = [move for move in path("G18 G2 X10 I5 K0").moves if move.kind == "arc"]
    x, y, z = arc.points[len(arc.points) // 2]
    assert (round(x), round(y), round(z)) == (5, 0, 0)


@pytest.mark.parametrize(
    ("line", "length"),
    [
        ("G2 I5", 2 * math.pi * 5),
        ("G3 X0 Y0 J5", 2 * math.pi * 5),
        ("G3 I5 P3", 3 * 2 * math.pi * 5),
        ("G2 X5 Y5 I5 P2", 2.5 * math.pi * 5 - 2 * math.pi * 5 + 2 * math.pi * 5),
        ("G2 X10 R-5.0", math.pi * 5),
        ("G2 X6 R-5", 5 * (2 * math.pi - 2 * math.asin(0.6))),
        ("G2 X6 R5", 5 * 2 * math.asin(0.6)),
        ("G3 I5 Z0", math.hypot(2 * math.pi * 5, 5)),
    ],
)
def test_lengths_of_arcs(line: str, length: float) -> None:
    assert path(line).cut_mm == pytest.approx(length)


@pytest.mark.parametrize(
    "line", ["G2 X10", "G2 X10 I4", "G2 X10 R4", "G2 X0 Y0 R5", "G90.1 G2 X10 I5", "G2 X1 Z2 K5"]
)
def test_an_arc_that_is_no_arc_is_named_and_not_drawn(line: str) -> None:
    toolpath = path(line, "G1 X1", "G0 X0 Y0 Z0", "G1 X5")
    # After it nothing is known until the program says it again.
    assert ends(toolpath) == [("feed", (5, 0, 0))]
    assert [remark.lines for remark in toolpath.remarks if remark.what.startswith("An arc")] == [
        [3]
    ]


def test_a_cycle_drills_each_hole_and_returns_to_its_start() -> None:
    toolpath = path("G81 X1 Y1 Z-3 R2", "X2", "G80", "G0 X0")
    hole = [
        ("rapid", (1, 1, 5)),
        ("rapid", (1, 1, 2)),
        ("feed", (1, 1, -3)),
        ("rapid", (1, 1, 5)),
    ]
    assert ends(toolpath)[:4] == hole
    assert [end for _, end in ends(toolpath)[4:8]] == [(2, 1, 5), (2, 1, 2), (2, 1, -3), (2, 1, 5)]
    assert ends(toolpath)[-1] == ("rapid", (0, 1, 5))


def test_cycles_by_distances_repeats_and_return_to_clearance() -> None:
    toolpath = path("G91 G99 G83 X1 Z-4 R-3 Q1 L2")
    assert [end for _, end in ends(toolpath)] == [
        *[(1, 0, 5), (1, 0, 2), (1, 0, -2), (1, 0, 2)],
        *[(2, 0, 2), (2, 0, 2), (2, 0, -2), (2, 0, 2)],
    ]
    assert said(toolpath) == {"Pecks (G73, G83) are drawn as one plunge.": [3]}


def test_boring_leaves_at_feed_rate() -> None:
    assert ends(path("G85 X0 Y0 Z-1 R2"))[-1] == ("feed", (0, 0, 5))


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("G1 X#1", "Variables and expressions"),
        ("G1 X[1+2]", "Variables and expressions"),
        ("O100 CALL", "Sub-programs and loops"),
        ("M98 P100", "Sub-programs (M97"),
        ("G28 X0", "G28 goes to a place of the machine"),
        ("G53 G0 Z0", "G53 moves in coordinates of the machine"),
        ("G92 X0 Y0", "G92 shifts the coordinates"),
        ("G10 L2 P1 X0", "G10 sets offsets"),
        ("G41 D1", "G41 shifts the tool by its radius"),
        ("G5 X1 Y1 I0 J1 P1", "G5 is not followed"),
        ("M123", "M123 is not known here"),
        ("G1 X1 A90", "What A turns is not drawn"),
        ("G1 X1 X2", "A word stands twice"),
        ("G0 G1 X1", "Two G words in a line contradict"),
        ("G1 X1 ?", "Lines with something that is no word"),
        ("G1 X", "Lines with something that is no word"),
        ("G80 X1", "Coordinates without a motion"),
        ("(open X1", "A comment has no end"),
        ("/G1 X1", "Lines that may be skipped"),
        ("G81 X1 Y1", "A cycle without depth"),
        ("G18 G81 X1 Z-1 R1", "Cycles in another plane"),
    ],
)
def test_what_is_not_drawn_is_named_by_line(line: str, what: str) -> None:
    remarks = said(path(line))
    assert [lines for sentence, lines in remarks.items() if sentence.startswith(what)] == [[3]]


@pytest.mark.parametrize("line", ["G1 X#1", "G28", "G5 X1", "G1 X1 ?", "G1 X1 U2", "G1 X1E2"])
def test_after_a_place_that_is_not_known_nothing_is_drawn_until_it_is(line: str) -> None:
    toolpath = path(line, "G1 X1", "Y1", "G0 X0 Y0 Z0", "G1 X9")
    assert ends(toolpath) == [("feed", (9, 0, 0))]
    assert said(toolpath)["Moves from or to a place that is not known are not drawn."] == [4, 5, 6]


def test_several_offsets_are_named() -> None:
    toolpath = path("G54 G0 X1 Y1 Z1", "G55 G0 X1")
    assert "Several work offsets (G54 to G59) are drawn over each other." in said(toolpath)


def test_units_and_an_end_that_are_missing_are_named() -> None:
    assert said(read_toolpath("G90\nG0 X0\n")) == {
        "Lines before the program names units (G20, G21) are read as mm.": [2],
        "The text has no end of the program (M2, M30 or %).": [2],
    }


def test_nothing_after_the_end_is_read() -> None:
    assert _moves(f"{SQUARE}G1 X99\n") == _moves(SQUARE)
    assert _moves(f"%\n{SQUARE.replace('M30', '%')}G1 X99") == _moves(SQUARE)


def test_a_remark_counts_all_lines_and_names_the_first() -> None:
    (remark,) = path(*["M123"] * 50).remarks
    assert (remark.count, len(remark.lines)) == (50, REMARK_LINES)


def test_a_program_of_too_many_moves_ends_with_a_remark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moves, "MOVE_LIMIT", 10)
    toolpath = read_toolpath("G21 G91 F1\n" + "G1X1\n" * 15 + "M30")
    assert toolpath.move_count == 10
    assert not toolpath.is_whole
    assert said(toolpath)["Only the first 10 moves are drawn."] == [12]
    assert read_toolpath("G21 G91 F1\n" + "G1X1\n" * 10 + "M30").is_whole


@pytest.mark.slow
def test_four_hundred_thousand_moves_are_drawn() -> None:
    begin, piece = "G21 G91 F1\n", "G1X1\n"
    assert read_toolpath(begin + piece * 400_000 + "M30").is_whole
    more = read_toolpath(begin + piece * 400_001 + "M30")
    assert (more.move_count, more.is_whole) == (400_000, False)


@pytest.mark.parametrize(
    "line", ["G3 I5 P100000000", "G3 I5 P999999999", "G91 G81 X1 Z-1 R-1 L999999999"]
)
def test_a_line_of_many_moves_is_bounded(line: str) -> None:
    toolpath = path(line, "G0 X1")
    assert toolpath.move_count <= moves.MOVE_LIMIT
    assert not toolpath.is_whole


def test_a_text_that_is_too_long_ends_before_the_line_that_is_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = f"{BEGIN}G1 X123\nM30"
    monkeypatch.setattr(program, "TEXT_LIMIT_BYTES", len(BEGIN) + len("G1 X12"))
    toolpath = read_toolpath(text)
    assert ends(toolpath) == []
    assert not toolpath.is_whole
    assert f"Only the first {len(BEGIN) + 6} bytes are read." in said(toolpath)


def test_sixteen_mebibytes_are_read() -> None:
    comment = "(" + "é" * 2000 + ")\n"
    text = comment * (program.TEXT_LIMIT_BYTES // len(comment.encode()))
    rest = " " * (program.TEXT_LIMIT_BYTES - len(text.encode()) - len("M30"))
    assert read_toolpath(f"{text}M30{rest}").is_whole
    assert not read_toolpath(f"{text}M30{rest} ".encode()).is_whole


def test_a_text_of_too_many_lines_ends_with_a_remark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "LINE_LIMIT", 3)
    assert read_toolpath("G21 G90\nG0 X0\nM30").is_whole
    toolpath = read_toolpath("G21 G90\nG0 X0 Y0 Z0\nX1\nX2\nM30")
    assert ends(toolpath) == [("rapid", (1, 0, 0))]
    assert not toolpath.is_whole
    assert "Only the first 3 lines are read." in said(toolpath)


def test_remarks_tools_and_speeds_are_bounded() -> None:
    toolpath = path(*(f"M{number} S{number} T{number} M6" for number in range(1000, 2000)))
    assert len(toolpath.remarks) == moves.LISTED_LIMIT + 2
    assert len(toolpath.tools) == len(toolpath.spindle_rpm) == moves.LISTED_LIMIT
    assert "Only the first 100 tools and speeds are listed." in said(toolpath)
    further = "A further word is not known here: what it does is not drawn."
    assert said(toolpath)[further] == list(range(103, 103 + REMARK_LINES))


LETTERS = "GMXYZIJKRFSTPQLNOABCE#[]()%;/=."
LINES = st.lists(
    st.text(alphabet=LETTERS + "0123456789+- ", max_size=30) | st.text(max_size=10), max_size=20
)


@given(LINES)
@settings(max_examples=300)
def test_any_text_gives_moves_of_finite_lengths_and_no_error(lines: list[str]) -> None:
    toolpath = read_toolpath("\n".join(lines))
    assert all(len(move.points) != 1 for move in toolpath.moves)
    numbers = [axis for move in toolpath.moves for point in move.points for axis in point]
    lengths = [toolpath.rapid_mm, toolpath.cut_mm, toolpath.cut_seconds]
    assert all(map(math.isfinite, numbers + lengths))


WORDS = st.sampled_from(
    ["G0 X1", "G1 X2 Y3", "X-4.5", "G2 X10 I3", "G3 I1 J1", "G91", "G90", "G20", "G21", "Z-1"]
)


VARIANTS: list[Callable[[int, str], str]] = [
    lambda _, line: line.lower(),
    lambda _, line: line.replace(" ", ""),
    lambda number, line: f"N{number} {line}",
    lambda _, line: f"{line} T1",
    lambda _, line: line + "\r",
    lambda _, line: re.sub(r"(?=[A-Z])", "\t ", line),
    lambda _, line: " ".join(reversed(re.findall(r"[A-Z][^A-Z ]*", line))),
    lambda _, line: f"({line} (nested)) {line}",
    lambda _, line: f"{line} ; G1 X99",
    lambda _, line: re.sub(r"([GXYZ])(-?)([0-9])", r"\g<1>\g<2>0\3", line),
]


@given(st.lists(st.tuples(WORDS, st.sampled_from(VARIANTS)), max_size=30))
@settings(max_examples=200)
def test_case_spaces_comments_zeros_and_line_numbers_change_no_move(
    lines: list[tuple[str, Callable[[int, str], str]]],
) -> None:
    plain = "\n".join(line for line, _ in lines)
    changed = "\n".join(change(number, line) for number, (line, change) in enumerate(lines))
    assert _moves(BEGIN + changed) == _moves(BEGIN + plain)


@given(st.lists(st.sampled_from(["G1 X2 Y3", "X-4.5 Z1", "G0 Y7 X1"]), max_size=10))
def test_a_motion_in_a_line_of_its_own_moves_the_next_lines(lines: list[str]) -> None:
    split = "\n".join(line.replace(" ", "\n", 1) if line[0] == "G" else line for line in lines)
    assert _moves(BEGIN + split) == _moves(BEGIN + "\n".join(lines))


def _moves(text: str) -> list[tuple[str, tuple[Point, ...]]]:
    return [(move.kind, move.points) for move in read_toolpath(text).moves]
