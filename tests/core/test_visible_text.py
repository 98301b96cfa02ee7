"""Nothing that somebody else wrote acts on a terminal, hides or reorders."""

import json
import sys
import unicodedata
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.visible_text import visible, visible_json, visible_lines
from pipeline.evidence.verifier import verify

# Default_Ignorable_Code_Point of Unicode's DerivedCoreProperties that is in no category of _NEVER.
_IGNORABLE = "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2065\u3164\ufe00\ufe0f\uffa0"
_NEVER = {"Cc", "Cf", "Zl", "Zp", "Cs"}
# No surrogates: two that follow one another are one character to every reader of JSON.
_ACTING = "\x1b\n\t\x9b\u202e\ufeff\U000e0041"
_TEXTS = st.text(st.characters(codec="utf-8") | st.sampled_from(_ACTING))


def every_character() -> Iterator[str]:
    return map(chr, range(sys.maxunicode + 1))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]2;pwned\x07", "\\u001b]2;pwned\\u0007"),
        ("a\nrun_y  persisted  OK", "a\\u000arun_y  persisted  OK"),
        ("a\tb\r", "a\\u0009b\\u000d"),
        ("\x7f\x9b31m", "\\u007f\\u009b31m"),
        ("\u202etxt.exe\u2066", "\\u202etxt.exe\\u2066"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("\u2028\u2029", "\\u2028\\u2029"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        (_IGNORABLE[0], "\\u034f"),
        ("Größe 3 µm, 漢字, [bold] C:\\temp", "Größe 3 µm, 漢字, [bold] C:\\temp"),
    ],
)
def test_what_acts_or_hides_is_escaped_and_all_else_stays(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_every_character_of_the_categories_that_act_or_hide_is_escaped() -> None:
    raw = [
        one
        for one in every_character()
        if unicodedata.category(one) in _NEVER and visible(one) == one
    ]

    assert raw == []
    assert [one for one in _IGNORABLE if visible(one) == one] == []


def test_the_verifier_in_a_bundle_shows_every_character_as_we_do() -> None:
    assert [one for one in every_character() if verify.visible(one) != visible(one)] == []


def test_lines_keep_their_newlines_and_tabs_alone() -> None:
    assert visible_lines("a\n\tb\r\x1b") == "a\n\tb\\u000d\\u001b"


@given(_TEXTS)
def test_json_keeps_its_value_and_has_no_character_that_is_not_seen(text: str) -> None:
    written = visible_json(json.dumps({text: [text]}, ensure_ascii=False, indent=1))

    assert json.loads(written) == {text: [text]}
    assert visible_lines(written) == written
    assert visible(json.dumps(text)) == json.dumps(text)
