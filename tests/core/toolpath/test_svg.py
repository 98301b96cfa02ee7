"""The picture of a toolpath: what it shows, what it says, and that nothing in it acts."""

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings

from pipeline.core.toolpath import read_toolpath
from pipeline.core.toolpath.svg import VIEW_SIZE, at_an_angle, from_above, sentences, svg_of
from tests.core.toolpath.test_program import BEGIN, LINES, path

SVG = "{http://www.w3.org/2000/svg}"
ELEMENTS = {"svg", "title", "desc", "rect", "g", "path", "text"}
ATTRIBUTES = {
    *("viewBox", "role", "font-family", "font-size", "transform", "x", "y", "width", "height", "d"),
    *("fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-linejoin", "stroke-linecap"),
}


def drawn(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg_of(read_toolpath(text), "a title"))


def outlines(picture: ElementTree.Element) -> list[list[str]]:
    """Return the data of the paths in each view."""
    return [
        [str(each.get("d")) for each in view.iter(f"{SVG}path")] for view in picture.iter(f"{SVG}g")
    ]


def test_each_kind_of_move_has_its_own_line_in_each_view() -> None:
    picture = drawn(f"{BEGIN}G0 X1\nG1 X2 Y3\nG2 X4 I1\nM30")
    assert [len(view) for view in outlines(picture)] == [3, 3]
    dashes = [each.get("stroke-dasharray") for each in picture.iter(f"{SVG}path")]
    assert dashes[:3] == ["5 4", None, None]
    assert len({each.get("stroke-width") for each in picture.iter(f"{SVG}path")}) == 3


def test_both_views_are_seen_from_above_and_not_in_a_mirror() -> None:
    for project in (from_above, at_an_angle):
        # On a screen Y grows downwards; seen from above, X turns to Y counterclockwise.
        x, y, z = (project(axis) for axis in ((1, 0, 0), (0, 1, 0), (0, 0, 1)))
        assert x[0] * -y[1] - -x[1] * y[0] > 0
        assert x[0] > 0
        assert -y[1] > 0
        assert z[1] <= 0


def test_a_view_is_filled_and_keeps_the_proportions() -> None:
    (above, _) = outlines(drawn(f"{BEGIN}G1 X20\nY10\nX0\nY0\nM30"))
    spots = [(float(x), float(y)) for x, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", above[0])]
    xs, ys = zip(*spots, strict=True)
    assert max(xs) - min(xs) == pytest.approx(VIEW_SIZE - 48)
    assert max(ys) - min(ys) == pytest.approx((VIEW_SIZE - 48) / 2)
    # The first corner is at the left and low: Y goes up.
    assert (spots[0][0], spots[0][1]) == (min(xs), max(ys))


def test_a_hole_is_a_dot_from_above() -> None:
    (above, angle) = outlines(drawn(f"{BEGIN}G1 Z-5\nM30"))
    assert above == [f"M{VIEW_SIZE / 2} {VIEW_SIZE / 2}h0"]
    assert "L" in angle[0]


def test_moves_that_do_not_join_are_not_joined() -> None:
    (above, _) = outlines(drawn(f"{BEGIN}G1 X1\nG28\nG0 X5 Y5 Z5\nG1 X6\nM30"))
    assert above[0].count("M") == 2


def test_the_end_of_each_run_is_drawn_where_it_is() -> None:
    lines = "\n".join(f"G1 X{n / 1000}" for n in range(100))
    (above, _) = outlines(drawn(f"{BEGIN}G1 Y10\n{lines}\nM30"))
    # A thousandth of a millimetre is 0.04 units here, and the whole way to the right is 4.3.
    assert above[0].startswith("M237.9 456.0L237.9 24.0L238.4 24.0L238.9 24.0L")
    assert above[0].endswith("L242.1 24.0")
    assert above[0].count("L") < 12


def test_the_words_say_size_lengths_and_what_is_not_drawn_by_line() -> None:
    toolpath = read_toolpath("G20 G90\nG0 X0 Y0 Z1\nG1 X10 Y5 F9\nX#1\nM123\nM30")
    assert list(sentences(toolpath)) == [
        "As programmed: no stock, no machine and no collisions; rapid moves are drawn straight.",
        "2 moves, an arc counted by its chords, in a box of 254.00 by 127.00 by 0.00 mm, "
        "10.00 by 5.00 by 0.00 in (X by Y by Z).",
        "284.0 mm at feed rate, 0.0 mm of rapid moves.",
        "Lines: 6. Not drawn: 1 of the moves: the program has not said from or to where. "
        "Time: 1.2 minutes at feed rate. Tools: none named. "
        "Feed rates: 9.00 in/min, 228.6 mm/min. Spindle: no speed named.",
        "Variables and expressions (#, [ ]) are not evaluated: their lines are not drawn. "
        "(1 line: 4)",
        "M123 is not known here: what it does is not drawn. (1 line: 5)",
    ]
    picture = drawn("G0 X1")
    shown = " ".join(each.text or "" for each in picture.iter(f"{SVG}text"))
    assert "No move is drawn." in shown
    assert "The program has no end here: what is drawn may be a part of it." in shown
    assert "no collisions" in str(picture.findtext(f"{SVG}desc"))


def test_long_lists_of_lines_are_cut_and_say_so() -> None:
    said = list(sentences(path(*["M123"] * 30)))
    assert said[-1].endswith(" 21, 22, ...)")
    assert "(30 lines: 3, 4, " in said[-1]


@given(LINES)
@settings(max_examples=100)
def test_whatever_a_program_holds_the_picture_is_well_formed_and_nothing_in_it_acts(
    lines: list[str],
) -> None:
    picture = ElementTree.fromstring(svg_of(read_toolpath("\n".join(lines)), "".join(lines)[:0]))
    for element in picture.iter():
        assert element.tag.removeprefix(SVG) in ELEMENTS
        assert set(element.attrib) <= ATTRIBUTES


def test_a_title_is_text() -> None:
    title = '<script>alert(1)</script>" onload="x'
    picture = ElementTree.fromstring(svg_of(read_toolpath(BEGIN), title))
    assert picture.findtext(f"{SVG}title") == title
    assert list(picture.iter(f"{SVG}script")) == []
