"""The runbook as a document: every drill is tried, can be found, and is read as it is meant."""

import pytest

from tests.docs.test_documents import ROOT, anchor_of, section, text_of
from tests.docs.transcripts import RUNBOOK, commands_of, difference, headings, parts_of

DRILLS = [(page, name) for page in sorted(RUNBOOK.glob("*.md")) for name in headings(page)]
TRIED = "".join(
    path.read_text(encoding="utf-8") for path in (ROOT / "tests/e2e/runbook").glob("test_*.py")
)


def test_a_drill_is_tried() -> None:
    assert len(DRILLS) >= 30
    assert [name for _, name in DRILLS if f'.read(PAGE, "{name}")' not in TRIED] == []


def test_a_drill_says_what_to_see_to_run_and_to_see_then() -> None:
    assert [
        (name, part)
        for page, name in DRILLS
        for part, text in parts_of(page, name).items()
        if not list(commands_of(text))
    ] == []


def test_a_drill_is_found_by_what_is_seen() -> None:
    seen = section(text_of("operations.md"), "Symptoms")
    assert [
        name for page, name in DRILLS if f"(runbook/{page.name}#{anchor_of(name)})" not in seen
    ] == []


TRANSCRIPT = """
Run: this.

    no transcript
    $ neither

And

    $ rmos one
    a   b
    ...
    [5]
    $ rmos two
"""


def test_a_transcript_is_read_as_commands_lines_and_statuses() -> None:
    one, two = commands_of(TRANSCRIPT)
    assert (one.line, one.printed, one.status) == ("rmos one", ("a   b", "..."), 5)
    assert (two.line, two.printed, two.status) == ("rmos two", (), 0)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        (["a b"], "a\tb\n"),
        (["a ... c"], "a b c\n"),
        (["..."], ""),
        (["...", "b"], "b\n"),
        (["...", "b", "..."], "a\nb\nc\nd\n"),
        ([], ""),
    ],
)
def test_what_is_shown_is_what_was_printed(shown: list[str], printed: str) -> None:
    assert difference(shown, printed) is None


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        (["a"], ""),
        ([], "a\n"),
        (["a"], "a\nb\n"),
        (["a.c"], "abc\n"),
        (["a ... c"], "a b\nc\n"),
        (["...", "b"], "b\nc\n"),
    ],
)
def test_what_is_shown_is_not_what_was_printed(shown: list[str], printed: str) -> None:
    assert difference(shown, printed) is not None
