"""What is found on a dead letter topic is read, whatever its bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.dead_letters.carried_record import Header
from pipeline.core.dead_letters.letter import (
    NO_CODE,
    DeadLetterRecord,
    dead_letter,
    read_dead_letter,
    record_headers,
)
from pipeline.core.record import RecordId, RecordSource
from pipeline.topics import BROKER_MESSAGE_LIMIT_BYTES
from tests.builders import sha256

PLACE = RecordId("rmos.runs.dead-letters", 0, 7)
SOURCE = RecordId("rmos.runs.requests", 3, 41)

names = st.one_of(
    st.sampled_from(["rmos-error-code", "rmos-body-size", "rmos-attempt", "traceparent"]),
    st.text(max_size=8),
)
headers = st.lists(st.tuples(names, st.none() | st.binary(max_size=20)), max_size=8)


def dead_letter_headers(value: bytes | None, record: list[Header]) -> list[Header]:
    return dead_letter(
        (b"k", value, record),
        RecordSource(1, RecordId.of(SOURCE)),
        1_766_066_602_123,
        code="INVALID_JSON",
        message="Expected an object.",
        group="rmos.persist",
    ).headers


def read(value: bytes | None, found: list[Header], key: bytes | None = b"k") -> DeadLetterRecord:
    return read_dead_letter(PLACE, 5, key, value, found)


def test_a_dead_letter_says_what_was_refused_and_why() -> None:
    letter = read(b"{", dead_letter_headers(b"{", []))
    assert letter == DeadLetterRecord(
        PLACE,
        5,
        SOURCE,
        1_766_066_602_123,
        "INVALID_JSON",
        "Expected an object.",
        "rmos.persist",
        1,
        "k",
        "carried",
        sha256(b"{"),
        1,
    )
    assert letter.identity == SOURCE


@given(st.none() | st.binary(max_size=20), headers)
def test_ours_are_the_last_headers_and_the_records_own_stay_as_they_came(
    value: bytes | None, record: list[Header]
) -> None:
    found = dead_letter_headers(value, record)
    assert record_headers(found) == record
    letter = read(value, found)
    assert (letter.code, letter.source) == ("INVALID_JSON", SOURCE)
    assert letter.body == ("none" if value is None else "carried")
    assert letter.body_sha256 == (None if value is None else sha256(value))


def test_a_forged_size_of_a_tombstone_is_not_believed() -> None:
    forged: list[Header] = [("rmos-error-code", b"X"), ("rmos-body-size", b"6000000")]
    letter = read(None, dead_letter_headers(None, forged))
    assert (letter.body, letter.size_bytes, letter.body_sha256) == ("none", 0, None)


def test_a_value_that_was_left_at_its_source_is_told_apart_from_none() -> None:
    value = bytes(BROKER_MESSAGE_LIMIT_BYTES + 1)
    letter = read(None, dead_letter_headers(value, []))
    assert (letter.body, letter.size_bytes) == ("at its source", len(value))
    assert letter.body_sha256 == sha256(value)


@given(st.none() | st.binary(max_size=20), st.none() | st.binary(max_size=500), headers)
def test_whatever_is_there_can_be_read(
    value: bytes | None, key: bytes | None, found: list[Header]
) -> None:
    letter = read(value, found, key)
    assert letter.identity in {letter.source, PLACE}
    assert all(len(text) <= 1024 for text in (letter.key or "", letter.message))


def test_what_is_no_dead_letter_is_named_by_its_own_place() -> None:
    letter = read(b"x", [("rmos-source-topic", b"t"), ("rmos-source-partition", b"0")])
    assert (letter.code, letter.source, letter.identity) == (NO_CODE, None, PLACE)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rmos-source-topic", b"../etc"),
        ("rmos-source-topic", b"a/b"),
        ("rmos-source-partition", b"-1"),
        ("rmos-source-partition", b"03"),
        ("rmos-source-offset", b"1e3"),
        ("rmos-source-offset", b"\xff"),
        ("rmos-source-offset", b"9" * 30),
        ("rmos-source-offset", None),
    ],
)
def test_a_source_that_names_no_record_is_none(name: str, value: bytes | None) -> None:
    changed = [
        (each, value if each == name else old) for each, old in dead_letter_headers(b"{", [])
    ]
    assert read(b"{", changed).source is None


def test_headers_that_somebody_put_behind_ours_stay_with_the_record() -> None:
    found = [("a", b"1"), *dead_letter_headers(b"{", []), ("proxy", b"x")]
    assert record_headers(found) == [("a", b"1"), ("proxy", b"x")]


@given(st.integers(0, 2**31 - 1), st.integers(0, 10**18 - 1))
def test_a_place_is_read_back_as_it_is_written(partition: int, offset: int) -> None:
    place = RecordId("rmos.runs.requests", partition, offset)
    assert RecordId.parse(str(place)) == place


@pytest.mark.parametrize("text", ["", "rmos", "a/1", "a/1/2/3", "a/1/-2", "a/01/2", "a/1/2\n"])
def test_other_text_is_no_place(text: str) -> None:
    with pytest.raises(ValueError, match="expected a record such as"):
        RecordId.parse(text)
