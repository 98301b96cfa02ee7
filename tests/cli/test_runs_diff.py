"""The difference of two runs as a person reads it: plain, coloured, and safe to print."""

import io
import re
from typing import Any

from rich.console import Console

from pipeline.cli.runs import print_diff
from pipeline.core.runs.diff import diff_runs
from tests.builders import document, red_request, run_request

ESCAPE = "\x1b"


def printed(a: dict[str, Any], b: dict[str, Any], *, terminal: bool = False) -> str:
    out = io.StringIO()
    console = Console(
        file=out,
        highlight=False,
        force_terminal=terminal,
        color_system="standard" if terminal else None,
        no_color=False,
        width=40,
    )
    print_diff(diff_runs(a, b), console)
    return out.getvalue()


def saw(**changes: Any) -> dict[str, Any]:
    return document(run_request()) | changes


def test_each_difference_is_one_plain_line_that_no_width_breaks() -> None:
    b = saw(run_id="run_b", notes="by hand", material_id="oak", outputs={})
    b["feasibility"] = {"score": 92.5, "x.y": ["a"]}
    lines = printed(saw(run_id="run_a"), b).splitlines()
    assert lines[0].startswith("INFO: ")
    assert lines[1:3] == [
        "- a: run_a  2025-12-18T14:03:22.123456Z",
        "+ b: run_b  2025-12-18T14:03:22.123456Z",
    ]
    assert '+ notes: "by hand"' in lines
    assert '~ context.material_id: "maple" -> "oak"' in lines
    assert r'+ feasibility.x\.y: ["a"]' in lines
    assert '- feasibility.risk_level: "GREEN"' in lines


def test_a_field_is_not_shown_both_as_a_group_and_as_a_value() -> None:
    text = printed(saw(), document(red_request()))
    paths = [line.split(":")[0][2:] for line in text.splitlines()[3:]]
    assert len(paths) == len(set(paths))
    assert {"decision.risk_level", "decision.warnings", "hashes.gcode_sha256"} < set(paths)
    assert not {"decision", "feasibility", "hashes", "decision.warnings.0"} & set(paths)
    assert '~ status: "OK" -> "BLOCKED"' in text


def test_what_is_critical_is_shown_although_the_items_were_cut() -> None:
    a, b = saw(), saw(feasibility={f"{index}": index for index in range(2500)})
    b["hashes"] = a["hashes"] | {"gcode_sha256": "0" * 64}
    text = printed(a, b)
    assert f'"{a["hashes"]["gcode_sha256"]}" -> "{"0" * 64}"' in text
    assert "hashes.gcode_sha256" in text.splitlines()[0]


def test_values_inside_the_decision_that_no_group_has_are_shown() -> None:
    a, b = saw(), saw()
    b["decision"] = b["decision"] | {"details": {"rule": "dust"}}
    assert '+ decision.details: {"rule": "dust"}' in printed(a, b)


def test_equal_runs_show_only_that() -> None:
    lines = printed(saw(), saw()).splitlines()
    assert lines[0] == "No differences detected in the fields that are compared."
    assert len(lines) == 3


def test_colours_are_for_a_terminal_alone_and_change_no_word() -> None:
    a, b = saw(), document(red_request())
    plain, coloured = printed(a, b), printed(a, b, terminal=True)
    assert ESCAPE not in plain
    assert f"{ESCAPE}[1;31mCRITICAL: " in coloured
    assert re.sub(rf"{ESCAPE}\[[0-9;]*m", "", coloured) == plain


def test_a_truncated_list_says_how_many_are_left() -> None:
    a, b = saw(feasibility={"x": [0] * 2101}), saw(feasibility={"x": [1] * 2101})
    assert printed(a, b).splitlines()[-1] == "... and 101 more"


def test_long_values_and_paths_are_cut() -> None:
    a, b = saw(notes="x" * 5000), saw(notes="y" * 5000, meta=saw()["meta"] | {"k" * 5000: 1})
    assert max(map(len, printed(a, b).splitlines())) < 300


def test_keys_and_values_can_neither_steer_the_terminal_nor_pass_for_markup() -> None:
    hostile = "\x1b[2J\x9b1m\r\n\u202e[red]"
    b = saw(meta=saw()["meta"] | {hostile: hostile})
    for terminal in (False, True):
        text = printed(saw(), b, terminal=terminal)
        assert "\x1b[2J" not in text
        assert not {"\x9b", "\r", "\u202e"} & set(text)
        assert "[red]" in text
    shown = r"\u001b[2J\u009b1m\u000d\u000a\u202e[red]"
    assert f"+ meta.{shown}: " in printed(saw(), b)
