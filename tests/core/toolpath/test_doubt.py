"""What may be read in two ways, or not at all, is never drawn as if it were known."""

import math

import pytest

from pipeline.core.toolpath import read_toolpath
from tests.core.toolpath.test_program import BEGIN, ends, path, said

UNKNOWN_MODES = "Modes that a line before may have set are not known: not drawn."
RESTATED = ("G21 G90 G0 X0 Y0 Z0", "G1 X1")
"""Units, distances, motion and all of a place."""


@pytest.mark.parametrize(
    "line",
    [
        "M98 P100",
        "M98P100L2",
        "O100 CALL",
        "o<part> call",
        "O101 WHILE [#1 LT 3]",
        "G#1",
        "G",
    ],
)
def test_after_a_line_that_may_set_any_mode_none_is_known(line: str) -> None:
    toolpath = path(line, "G0 X1 Y1 Z1", "G1 X2", *RESTATED)
    assert ends(toolpath) == [("feed", (1, 0, 0))]
    assert said(toolpath)[UNKNOWN_MODES] == [4, 5]


@pytest.mark.parametrize("line", ["G91 X#1", "G91 X1 ?", "G91 G90 X1", "G91 G1 G0 X1", "G91 X1 X2"])
def test_a_mode_in_a_line_that_is_not_understood_is_not_known(line: str) -> None:
    toolpath = path(line, "G0 X1 Y1 Z1", "G1 X2", *RESTATED)
    assert ends(toolpath) == [("feed", (1, 0, 0))]
    assert said(toolpath)[UNKNOWN_MODES] == [4, 5]


@pytest.mark.parametrize("line", ["G20 X#1", "G20 G21"])
def test_units_in_a_line_that_is_not_understood_are_not_known(line: str) -> None:
    assert ends(path(line, "G0 X1 Y1 Z1", "G1 X2")) == []


@pytest.mark.parametrize(
    "word", ["G68 X0 Y0 R45", "G51 X0 Y0 P2", "G16", "G52 X9", "G7", "G65 P9", "G12.1", "G43.4 H1"]
)
def test_after_a_g_word_that_is_not_known_nothing_is_drawn(word: str) -> None:
    toolpath = path("G1 X1", word, "G90 G21 G17 G91.1 G94 G0 X0 Y0 Z0", "G1 X5 F100")
    assert ends(toolpath) == [("feed", (1, 0, 5))]
    name = word.partition(" ")[0]
    assert said(toolpath)[f"{name} is not known here: nothing is drawn from its line on."] == [4]
    assert said(toolpath)[UNKNOWN_MODES] == [5, 6]


@pytest.mark.parametrize("line", ["(a (b) G91", "X1" * 2100, "G68 ?"])
def test_after_a_line_that_is_not_read_nothing_is_drawn(line: str) -> None:
    assert ends(path("G1 X1", line, *RESTATED)) == [("feed", (1, 0, 5))]


@pytest.mark.parametrize("line", ["G17 G40 G49 G80 G15 G69 G9", "G187 P1", "G64 P0.01", "G28.1"])
def test_what_only_cancels_or_smooths_is_no_remark(line: str) -> None:
    toolpath = path(line, "G0 X1 Y1 Z1", "G1 X2")
    assert ends(toolpath)[-1] == ("feed", (2, 1, 1))
    assert toolpath.remarks == []


@pytest.mark.parametrize(
    ("line", "x"),
    [("X1 0", 10), ("X\t1", 1), ("X+1.", 1), ("X.5", 0.5), ("X-0", 0), ("X00001", 1)],
)
def test_numbers_in_their_forms(line: str, x: float) -> None:
    assert ends(path(f"G1 {line}")) == [("feed", (x, 0, 5))]


@pytest.mark.parametrize(
    "number",
    [
        *("1e3", "1E-7", "1e308", "1,5", "1.2.3", "--1", "1-2", "0x10", ".", "-", "", "\u0661"),
        *("1_0", "inf", "nan", "9999999999", "9" * 400, "1\u00a05", "1\x005", "1\x0b", "1\u2003"),
    ],
)
def test_what_is_no_number_is_not_drawn(number: str) -> None:
    toolpath = path(f"G1 X{number} Y2", "G1 X3")
    assert ends(toolpath) == []
    assert toolpath.remarks


@pytest.mark.parametrize(
    "line", ["G1 \u017f5 X1", "G1 X\u21791", "\uff271 X1", "G1 X1\u202e", "\u01311 G2 X10"]
)
def test_letters_of_other_alphabets_are_no_words(line: str) -> None:
    assert ends(path(line)) == []


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1e"])
def test_only_cr_and_lf_end_a_line(mark: str) -> None:
    # A controller reads on to the end of the line: all of it is comment.
    assert ends(path(f"; comment{mark}G1 X99")) == []
    assert read_toolpath(BEGIN + f"(a){mark}G1 X99\nM30").line_count == 4


def test_ends_of_lines() -> None:
    lines = ["G21 G90", "G0 X0 Y0 Z0", "G1 X1 F1", "Y2", "M30"]
    plain = read_toolpath("\n".join(lines))
    assert read_toolpath("\r\n".join(lines)) == plain
    mixed = read_toolpath("\n".join(lines[:3]) + "\r" + "\r\n".join(lines[3:]))
    assert mixed.moves == plain.moves
    assert said(mixed) == {"A CR alone ends a line here; some controllers read on.": [3]}


def test_a_byte_order_mark_is_named_and_hides_no_word() -> None:
    text = f"{BEGIN}G1 X1\nM30"
    toolpath = read_toolpath(b"\xef\xbb\xbf" + text.encode())
    assert toolpath.moves == read_toolpath(text).moves
    name = "The text begins with a byte order mark, which some controllers refuse."
    assert said(toolpath) == {name: [1]}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "cp037"])
def test_bytes_of_another_encoding_are_not_drawn(encoding: str) -> None:
    toolpath = read_toolpath(f"{BEGIN}G1 X1\nM30".encode(encoding))
    assert ends(toolpath) == []
    assert toolpath.remarks


def test_bytes_that_are_no_utf8_disturb_no_line_where_they_are_comment() -> None:
    toolpath = read_toolpath(BEGIN.encode() + b"G1 X1 (5mm \xd8)\nG1 \xd8 X2\nM30")
    assert ends(toolpath) == [("feed", (1, 0, 5))]
    assert said(toolpath)["Lines with something that is no word are not drawn."] == [4]


@pytest.mark.parametrize(
    ("line", "drawn"),
    [
        ("(a) G1 X1", True),
        ("G1 (a) X1 (b", True),
        ("G1 X1 (a;b)", True),
        ("G1 X1 ;(a", True),
        ("(a;b) G1 X1", True),
        ("(a(b)c) G1 X1", True),
        ("; (a) G1 X1", False),
        ("(a(b) G1 X1", False),
        ("G1 X1 )", False),
        ("G1 X1 ) (a)", False),
    ],
)
def test_comments(line: str, drawn: bool) -> None:
    assert ends(path(line)) == ([("feed", (1, 0, 5))] if drawn else [])


def test_comments_within_comments_are_named() -> None:
    name = "A comment within a comment: some controllers end both at the first )."
    assert said(path("(a (b) c)", "(a)(b)")) == {name: [3]}


def test_units_that_change_leave_the_tool_where_it_is() -> None:
    toolpath = path("G1 X25.4", "G20 G1 Y1", "G91 X1", "G21 X1", "G20")
    assert [end for _, end in ends(toolpath)] == [
        (25.4, 0, 5),
        (25.4, 25.4, 5),
        (50.8, 25.4, 5),
        (51.8, 25.4, 5),
    ]


def test_a_feed_of_before_is_not_used_in_other_units() -> None:
    toolpath = path("G1 X60", "G20 G1 Y1", "G21 G1 X0", "F600 X60")
    assert toolpath.cut_seconds == pytest.approx(6 + 6)
    assert said(toolpath) == {"Moves without a feed rate (F) are not in the time.": [4, 5]}


def test_units_and_planes_by_default_are_named_where_they_are_used() -> None:
    toolpath = read_toolpath("G0 X0 Y0 Z0\nG2 X1 R1 F1\nG21 G90 G17\nG2 X2 R1\nM2")
    assert said(toolpath) == {
        "Lines before the program names units (G20, G21) are read as mm.": [1, 2],
        "Lines before the program says G90 or G91 are read as G90.": [1, 2],
        "Arcs before the program names a plane (G17, G18, G19) are read as G17.": [2],
    }


@pytest.mark.parametrize(
    "line",
    [
        "G1 X1 I2",
        "G1 X1 R2",
        "G1 X1 L2",
        "G2 X10 I5 R5",
        "G2 X10 I5 K3",
        "G18 G2 X10 I5 J1",
        "G2 I5 P0",
        "G2 I5 P-1",
        "G2 I5 P1.5",
        "G2 X0 Y0 I0",
        "G2 X0 Y0 I0 J0",
        "G2 X10 I5 Q1",
        "G2 X20000 I10005",
        "I5",
        "R2",
        "G2\nI5 X#1",
        "G81 X1 Z-1 R1 K3",
        "G81 X1 Z-1 R1 L0",
        "G81 X1 Z-1 R1 L1.5",
        "G81 X1 Z3 R2",
        "G91 G81 X1 Z3 R-2",
        "G4 P1 X5",
        "G4 Y5",
        "G1 X1 M98 P1",
        "G87 X1 Z-1 R1",
        "G38.2 Z-5",
        "G33 Z-1 K1",
        "G1 X1 W2",
        "/G1 X1 /",
        "% X1",
    ],
)
def test_words_that_mean_another_thing_elsewhere_are_not_drawn(line: str) -> None:
    toolpath = path(line, "G1 X3")
    assert ends(toolpath) == []
    assert 3 in [line for remark in toolpath.remarks for line in remark.lines]


def test_a_circle_again_by_its_centre_alone_is_named() -> None:
    toolpath = path("G2 I5", "I5")
    assert toolpath.cut_mm == pytest.approx(math.tau * 5)
    assert said(toolpath) == {"I, J, K or R in a line without X, Y and Z is not understood.": [4]}


def test_a_time_to_wait_that_is_called_x_moves_nothing() -> None:
    assert ends(path("G1 X1", "G4 X2.0", "G4 P2", "Y1"))[-1] == ("feed", (1, 1, 5))


def test_home_and_machine_coordinates_lose_only_the_axes_that_they_move() -> None:
    for line in ("G91 G28 Z0", "G53 G0 Z0", "G30 Z1"):
        toolpath = path("G0 X1 Y1", line, "G90 G0 X2 Y2", "Z5", "G1 X3")
        assert ends(toolpath) == [("rapid", (1, 1, 5)), ("feed", (3, 2, 5))]
    assert ends(path("G28", "G90 G0 X2 Y2", "Z5", "G1 X3")) == [("feed", (3, 2, 5))]


def test_shifted_coordinates_are_drawn_without_the_shift_and_named() -> None:
    toolpath = path("G0 X10", "G92 X0 Y0", "G1 X1", "G92.1", "G1 X2", "G0 X0 Y0 Z0", "G1 X5")
    assert ends(toolpath) == [("rapid", (10, 0, 5)), ("feed", (1, 0, 5)), ("feed", (5, 0, 0))]
    shift = "G92 shifts the coordinates: what follows is drawn without the shift."
    assert said(toolpath)[shift] == [4, 6]
    assert ends(path("G92 X1 G20", "G1 X2")) == [("feed", (50.8, 0, 5))]


def test_a_length_of_the_tool_makes_its_height_another() -> None:
    toolpath = path("G43 H1", "G0 X1", "Z5", "G1 X2")
    assert ends(toolpath) == [("feed", (2, 0, 5))]
    assert ends(path("G43 H1 Z9", "G1 X2")) == [("feed", (2, 0, 9))]


def test_an_offset_that_is_named_after_moves_is_another() -> None:
    several = "Several work offsets (G54 to G59) are drawn over each other."
    assert several in said(path("G55 G0 X1"))
    assert several in said(path("G54.1 P1", "G0 X0 Y0 Z0", "G54.1 P2"))
    assert several not in said(path("G54 G0 X1"))
    assert several not in said(read_toolpath("G21 G90 G55\nG0 X0 Y0 Z0\nG55 X1\nM2"))


def test_a_cycle_goes_on_by_x_and_y_alone_and_ends() -> None:
    drilled = path("G99 G81 X1 Y1 Z-3 R2", "X2", "Y3", "G80", "X9", "G0 X4")
    feeds = [end for kind, end in ends(drilled) if kind == "feed"]
    assert feeds == [(1, 1, -3), (2, 1, -3), (2, 3, -3)]
    # After G80 there is no motion.
    assert "Coordinates without a motion (G0 to G3 or a cycle) are not drawn." in said(drilled)


def test_cycles_one_after_another_return_to_where_the_first_began() -> None:
    toolpath = path("G99 G81 X1 Z-3 R2", "G98 G82 X2 Z-3 R2 P1", "G0 X3")
    assert ends(toolpath)[-2:] == [("rapid", (2, 0, 5)), ("rapid", (3, 0, 5))]


def test_a_cycle_from_an_unknown_height_returns_to_an_unknown_one() -> None:
    toolpath = path("G28 Z0", "G98 G81 X1 Y1 Z-3 R2", "G80 G1 X5", "G0 Z2")
    assert ends(toolpath) == [("feed", (1, 1, -3))]


def test_what_another_feed_mode_means_by_f_and_s() -> None:
    toolpath = path("G93 G1 X10 F2", "G94 G1 X0", "G95 S100 F0.1 X60", "G96 S200 X0")
    assert toolpath.cut_seconds == pytest.approx(30 + 60 / 10 * 60)
    assert toolpath.spindle_rpm == [100]
    assert said(toolpath)["Moves without a feed rate (F) are not in the time."] == [4, 6]


def test_feed_that_is_a_variable_is_not_known() -> None:
    toolpath = path("F#1", "G1 X10")
    assert toolpath.cut_seconds == 0
    assert said(toolpath)["Moves without a feed rate (F) are not in the time."] == [4]


def test_what_stands_behind_the_end_is_named() -> None:
    behind = "What stands behind the end of the program is not drawn."
    assert said(path("M30", "(bye)", "M5", "%", "G1 X5")) == {behind: [7]}
    assert said(read_toolpath(f"%\nO1000 (PART)\n{BEGIN}G1 X1\n%\nG1 X2")) == {behind: [7]}
    assert said(read_toolpath(f"%\n{BEGIN}G1 X1\nM30\n%\n")) == {}


def test_a_text_of_many_digits_takes_no_time_to_refuse() -> None:
    line = "X1111111111" * 300 + "!"
    assert ends(path(line)) == []


def test_incremental_moves_from_a_place_that_is_lost_are_not_taken_from_zero() -> None:
    assert ends(read_toolpath("G21 G91 F1\nG0 X1 Y1 Z1\nG28\nG1 X1\nG1 Y1\nM2")) == [
        ("rapid", (1, 1, 1))
    ]


@pytest.mark.parametrize("turn", ["G2", "G3"])
@pytest.mark.parametrize(
    ("plane", "a", "b", "across"),
    [("G17", "X", "Y", "Z"), ("G18", "Z", "X", "Y"), ("G19", "Y", "Z", "X")],
)
def test_arcs_turn_alike_in_each_plane(turn: str, plane: str, a: str, b: str, across: str) -> None:
    """Seen from the positive end of the third axis a quarter turns clockwise, or not (G2, G3)."""
    centre = dict(zip("XYZ", "IJK", strict=True))
    end = 1 if turn == "G3" else -1
    line = f"{plane} {turn} {a}0 {b}{end * 10} {centre[a]}-10 {across}6"
    toolpath = path(f"G0 {a}10 {b}0 {across}0", line)
    arc = toolpath.moves[-1]
    middle = dict(zip("XYZ", arc.points[len(arc.points) // 2], strict=True))
    assert middle[a] > 0
    assert middle[b] * end > 0
    assert middle[across] == pytest.approx(3, abs=0.3)
    assert toolpath.cut_mm == pytest.approx(math.hypot(math.pi * 5, 6))
    radii = {math.hypot(point["XYZ".index(a)], point["XYZ".index(b)]) for point in arc.points}
    assert all(radius == pytest.approx(10) for radius in radii)
