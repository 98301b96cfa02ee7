"""What is sent back, what is remembered of it, and what is left out."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.dead_letters.carried_record import Header
from pipeline.core.dead_letters.letter import DeadLetterRecord, dead_letter, read_dead_letter
from pipeline.core.dead_letters.redrive import (
    Redrive,
    plan_redrive,
    read_redrive,
    redrive_record,
    redriven_headers,
)
from pipeline.core.dead_letters.selection import DeadLetterFilter
from pipeline.core.record import RecordId, RecordSource
from tests.core.dead_letters.test_selection import LETTER, SOURCE

PARTITIONS = {"rmos.runs.requests": 12}
headers = st.lists(st.tuples(st.text(max_size=5), st.none() | st.binary(max_size=5)), max_size=5)


def refused(record: list[Header], offset: int) -> tuple[DeadLetterRecord, list[Header]]:
    """Return the dead letter of a record at `offset`, and its headers."""
    letter = dead_letter(
        (b"k", b"{", record),
        RecordSource(1, RecordId(SOURCE.topic, SOURCE.partition, offset)),
        0,
        code="INTERNAL_ERROR",
        message="",
        group="rmos.persist",
    )
    found = read_dead_letter(LETTER.place, 0, letter.key, letter.value, letter.headers)
    return found, letter.headers


@given(headers)
def test_each_redrive_adds_two_headers_and_takes_none(record: list[Header]) -> None:
    found = list(record)
    for attempt, offset in enumerate((41, 57, 99), start=2):
        letter, dead_letter_headers = refused(found, offset)
        assert letter.attempt == attempt - 1
        sent = redriven_headers(letter, dead_letter_headers)
        assert sent == [
            *found,
            ("rmos-redrive-of", f"rmos.runs.requests/3/{offset}".encode()),
            ("rmos-attempt", b"%d" % attempt),
        ]
        found = sent


def test_a_memory_is_read_back() -> None:
    now = RecordId("rmos.runs.requests", 3, 99)
    key, value = redrive_record(LETTER, now)
    assert key == str(SOURCE).encode()
    assert read_redrive(value) == Redrive(SOURCE, now, 2)


@pytest.mark.parametrize("value", [None, b"", b"{}", b"\xff", b'{"schema_version": "x"}'])
def test_what_is_no_memory_of_ours_is_passed_over(value: bytes | None) -> None:
    assert read_redrive(value) is None


def test_a_plan_leaves_out_what_is_done_held_or_never_to_be_sent() -> None:
    def letter(offset: int, **changes: object) -> DeadLetterRecord:
        return replace(LETTER, source=SOURCE._replace(offset=offset), **changes)

    ready, done, held = letter(1), letter(2), letter(3, code="RUN_CONFLICT")
    nowhere = replace(LETTER, source=None)
    elsewhere = replace(LETTER, source=RecordId("rmos.runs.events", 0, 1))
    beyond = replace(LETTER, source=SOURCE._replace(partition=12))
    unchecked = letter(4, body_sha256=None)
    letters = [ready, done, held, nowhere, elsewhere, beyond, unchecked]
    redrives = {done.identity: Redrive(done.identity, SOURCE, 2)}

    def planned(
        chosen: list[DeadLetterRecord], wanted: DeadLetterFilter, *, again: bool
    ) -> dict[str, list[Any]]:
        plan = plan_redrive(chosen, redrives, PARTITIONS, wanted, again=again)
        return {
            each.status: [one.letter for one in plan if one.status == each.status] for each in plan
        }

    assert planned(letters, DeadLetterFilter(), again=False) == {
        "refused": [nowhere, elsewhere, beyond, unchecked],
        "held": [held],
        "redriven before": [done],
        "ready": [ready],
    }
    by_name = DeadLetterFilter(sources=frozenset({held.place}))
    by_code = planned(letters, DeadLetterFilter(codes=frozenset({"RUN_CONFLICT"})), again=True)
    assert by_code["ready"] == [ready, done, held]
    assert planned([held], by_name, again=False) == {"ready": [held]}
