"""Refused records are listed once, and selected by what is asked for."""

import ast
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.core.dead_letters.letter import DEAD_LETTER_CODES, DeadLetterRecord, dead_letter_code
from pipeline.core.dead_letters.selection import (
    DeadLetterCollection,
    DeadLetterFilter,
    missing_dead_letter,
)
from pipeline.core.record import RecordId

SOURCE = RecordId("rmos.runs.requests", 3, 41)
LETTER = DeadLetterRecord(
    RecordId("rmos.runs.dead-letters", 0, 7),
    1000,
    SOURCE,
    900,
    "INVALID_JSON",
    "Expected an object.",
    "rmos.persist",
    1,
    "run_1",
    "carried",
    "5" * 64,
    2,
)


def at(offset: int, **changes: object) -> DeadLetterRecord:
    return replace(LETTER, place=LETTER.place._replace(offset=offset), **changes)


def collected(*letters: DeadLetterRecord) -> list[DeadLetterRecord]:
    collection = DeadLetterCollection()
    for letter in letters:
        collection.add(letter)
    return collection.selected(DeadLetterFilter())


@pytest.mark.parametrize("order", [(7, 8, 9), (9, 8, 7), (8, 9, 7)])
def test_of_several_letters_of_a_record_the_last_one_counts(order: tuple[int, ...]) -> None:
    # The clock of a worker may stand behind that of the one before.
    (letter,) = collected(*(at(offset, timestamp_ms=2000 - offset) for offset in order))
    assert (letter.place.offset, letter.letters) == (9, 3)


def test_letters_of_other_records_stay_apart_and_come_in_the_order_of_their_times() -> None:
    other = at(8, source=SOURCE._replace(offset=40), timestamp_ms=999)
    strange = at(9, source=None, timestamp_ms=998)
    assert collected(LETTER, other, strange) == [strange, other, LETTER]


def test_a_second_partition_for_a_record_is_settled_by_the_clock() -> None:
    elsewhere = replace(LETTER, place=RecordId("rmos.runs.dead-letters", 1, 0))
    (letter,) = collected(LETTER, replace(elsewhere, timestamp_ms=1001))
    assert letter.place.partition == 1
    (letter,) = collected(LETTER, replace(elsewhere, timestamp_ms=999))
    assert letter.place.partition == 0


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        (DeadLetterFilter(), True),
        (DeadLetterFilter(codes=frozenset({"INVALID_JSON", "X"})), True),
        (DeadLetterFilter(codes=frozenset({"X"})), False),
        (DeadLetterFilter(topics=frozenset({"rmos.runs.requests"})), True),
        (DeadLetterFilter(topics=frozenset({"rmos.runs.dead-letters"})), True),
        (DeadLetterFilter(topics=frozenset({"rmos.audits.requests"})), False),
        (DeadLetterFilter(since_ms=1000, until_ms=1001), True),
        (DeadLetterFilter(since_ms=1001), False),
        (DeadLetterFilter(until_ms=1000), False),
        (DeadLetterFilter(sources=frozenset({SOURCE})), True),
        (DeadLetterFilter(sources=frozenset({LETTER.place})), True),
        (DeadLetterFilter(sources=frozenset({SOURCE._replace(offset=1)})), False),
        (DeadLetterFilter(sources=frozenset({SOURCE}), codes=frozenset({"X"})), False),
    ],
)
def test_a_filter_asks_for_all_that_it_names(wanted: DeadLetterFilter, fits: bool) -> None:
    assert wanted.fits(LETTER) is fits


def test_every_code_of_a_dead_letter_has_a_meaning() -> None:
    core = Path(__file__).parents[3] / "pipeline" / "core"
    written = set()
    for module in ("envelope", "runs/outcome", "advisories/verdict", "advisories/outcome"):
        for node in ast.walk(ast.parse((core / f"{module}.py").read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                written |= {node.value} if node.value.isupper() and "_" in node.value else set()
    assert "INVALID_JSON" in written
    assert written <= DEAD_LETTER_CODES.keys()
    assert dead_letter_code("OF_A_LATER_RELEASE").only_if_asked is False


def test_a_record_that_is_named_and_does_not_fit_is_not_said_to_have_no_letter() -> None:
    named = DeadLetterFilter(sources=frozenset({SOURCE}))
    assert missing_dead_letter(named, [LETTER]) is None
    by_either = frozenset({SOURCE, LETTER.place, SOURCE._replace(offset=1)})
    assert missing_dead_letter(DeadLetterFilter(by_either), [LETTER]) == (
        "There is no dead letter of rmos.runs.requests/3/1"
    )
    assert missing_dead_letter(named, []) == "There is no dead letter of rmos.runs.requests/3/41"
    with_code = replace(named, codes=frozenset({"TOMBSTONE"}))
    assert missing_dead_letter(with_code, []) == (
        "There is no dead letter of rmos.runs.requests/3/41 that fits the other options"
    )
