"""A dead letter: the record untouched, and headers that say why."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.dead_letters.letter import DeadLetter, dead_letter
from pipeline.core.record import RecordId, RecordSource
from pipeline.topics import BROKER_MESSAGE_LIMIT_BYTES
from tests.builders import sha256

SOURCE = RecordSource(1, RecordId("rmos.runs.requests", 3, 42))
Headers = list[tuple[str, bytes | None]]


def letter(
    value: bytes | None = b"{}",
    *,
    key: bytes | None = b"run_1",
    headers: Headers | None = None,
    message: str = "Expected a request.",
    timestamp_ms: int = 1_766_066_602_123,
) -> DeadLetter:
    return dead_letter(
        (key, value, headers or []),
        SOURCE,
        timestamp_ms,
        code="INVALID_JSON",
        message=message,
        group="rmos.persist",
    )


def ours(made: DeadLetter) -> dict[str, bytes | None]:
    return {name: value for name, value in made.headers if name.startswith("rmos-")}


def test_the_record_is_untouched_and_the_headers_say_where_it_came_from() -> None:
    made = letter(b"\xff not json", headers=[("traceparent", b"00-1"), ("x", None)])
    assert (made.key, made.value) == (b"run_1", b"\xff not json")
    assert made.headers[:2] == [("traceparent", b"00-1"), ("x", None)]
    assert ours(made) == {
        "rmos-error-code": b"INVALID_JSON",
        "rmos-error-message": b"Expected a request.",
        "rmos-source-topic": b"rmos.runs.requests",
        "rmos-source-partition": b"3",
        "rmos-source-offset": b"42",
        "rmos-source-timestamp": b"1766066602123",
        "rmos-group": b"rmos.persist",
        "rmos-attempt": b"1",
        "rmos-body-sha256": sha256(b"\xff not json").encode(),
    }


def test_a_tombstone_has_no_body_to_hash() -> None:
    made = letter(None, key=None)
    assert (made.key, made.value) == (None, None)
    assert "rmos-body-sha256" not in ours(made)


def test_a_value_of_five_mebibytes_travels_and_a_larger_one_stays_where_it_is() -> None:
    largest = bytes(BROKER_MESSAGE_LIMIT_BYTES)
    assert letter(largest).value == largest
    larger = largest + b"x"
    made = letter(larger)
    assert made.value is None
    assert ours(made)["rmos-body-sha256"] == sha256(larger).encode()
    assert ours(made)["rmos-body-size"] == b"5242881"


@given(st.text(max_size=3000))
def test_a_message_is_at_most_a_kilobyte_of_printable_ascii(message: str) -> None:
    value = ours(letter(message=message))["rmos-error-message"]
    assert value is not None
    assert len(value) <= 1024
    assert all(0x20 <= byte <= 0x7E for byte in value)
    if message.isascii() and message.isprintable():
        assert value == message[:1024].encode()


def test_a_record_without_a_time_has_none_before_1970() -> None:
    assert ours(letter(timestamp_ms=-1))["rmos-source-timestamp"] == b"0"


@pytest.mark.parametrize(
    ("headers", "attempt"),
    [
        ([], b"1"),
        ([("rmos-attempt", b"2")], b"2"),
        ([("rmos-attempt", b"2"), ("rmos-attempt", b"3")], b"3"),
        ([("rmos-attempt", b"2"), ("rmos-attempt", None)], b"2"),
        ([("rmos-attempt", b"2"), ("rmos-attempt", b"many")], b"2"),
        ([("rmos-attempt", b"0")], b"1"),
        ([("rmos-attempt", b"-1")], b"1"),
        ([("rmos-attempt", b"1" * 10)], b"1"),
        ([("rmos-attempt", b"\xd9\xa3")], b"1"),
        ([("rmos-attempt", b"2\n")], b"1"),
    ],
)
def test_the_attempt_is_what_the_last_redrive_said(headers: Headers, attempt: bytes) -> None:
    assert ours(letter(headers=headers))["rmos-attempt"] == attempt


def test_headers_of_the_producer_cannot_pass_for_ours() -> None:
    made = letter(headers=[("rmos-error-code", b"FINE"), ("rmos-source-offset", b"0")])
    assert ours(made)["rmos-error-code"] == b"INVALID_JSON"
    assert ours(made)["rmos-source-offset"] == b"42"
    assert made.headers[:2] == [("rmos-error-code", b"FINE"), ("rmos-source-offset", b"0")]


@pytest.mark.parametrize("key", [None, b"", b"\xff\x00"])
@pytest.mark.parametrize("value", [b"", b"\xff\x00"])
def test_any_key_and_value_are_untouched(key: bytes | None, value: bytes) -> None:
    headers: Headers = [("twice", b"a"), ("twice", b"\xff"), ("none", None)]
    made = letter(value, key=key, headers=headers)
    assert (made.key, made.value, made.headers[:3]) == (key, value, headers)
