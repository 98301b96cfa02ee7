"""Tables on a terminal: what people copy stays whole, whatever the width."""

from collections.abc import Callable

import pytest
from rich.console import Console
from rich.text import Text

from pipeline.cli.views import terminal
from pipeline.cli.views.terminal import print_table

RUN_ID = "run_6f1d2c3b4a5968778695a4b3c2d1e0f0"
HEADINGS = ("created_at_utc", "run_id", "status", "tool_id", "event_type", "artifact_sha256")
ROW = ("2025-12-18T14:03:22Z", RUN_ID, Text("BLOCKED", "red"), "saw:veneer_160", "x" * 40, "0" * 12)

Printed = Callable[..., list[str]]


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Printed:
    """Give what a table looks like on a terminal of a width."""

    def lines(width: int, row: tuple[object, ...] = ROW, whole: str | None = "run_id") -> list[str]:
        def console(**options: bool) -> Console:
            return Console(force_terminal=True, color_system="standard", width=width, **options)

        monkeypatch.setattr(terminal, "Console", console)
        print_table(HEADINGS, [row], whole=whole)
        written = capsys.readouterr()
        return [*written.out.splitlines(), *written.err.splitlines()]

    return lines


@pytest.mark.parametrize("width", [30, 40, 80, 100, 120, 200])
def test_the_run_id_is_whole_and_every_row_is_one_line(printed: Printed, width: int) -> None:
    lines = [line for line in printed(width) if "Left out" not in line]
    assert len(lines) == 2
    assert RUN_ID in lines[1]
    assert "BLOCKED" in lines[1] or width < 80
    assert Text.from_ansi(lines[1]).cell_len <= max(width, len(RUN_ID) + 2)


def test_the_last_columns_are_cut_first_and_only_as_far_as_needed(printed: Printed) -> None:
    row = Text.from_ansi(printed(120)[1]).plain
    assert row.split() == [ROW[0], RUN_ID, "BLOCKED", ROW[3], "x" * 34 + "…"]
    row = Text.from_ansi(printed(80)[1]).plain
    assert row.split() == [ROW[0], RUN_ID, "BLOCKED", "saw:veneer…"]
    assert "0" * 12 in printed(200)[1]


def test_a_column_that_is_left_out_is_named(printed: Printed) -> None:
    assert len(printed(200)) == 2
    (told,) = printed(80)[2:]
    assert Text.from_ansi(told).plain == (
        "Left out for the width: event_type, artifact_sha256; --json has all."
    )


def test_a_status_has_its_colour_and_a_name_no_markup(printed: Printed) -> None:
    row = (*ROW[:3], "[bold]x[/]", *ROW[4:])
    line = printed(200, row)[1]
    assert "\x1b[31mBLOCKED\x1b[0m" in line
    assert "[bold]x[/]" in line
