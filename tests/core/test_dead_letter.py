"""A dead letter: the record untouched, and headers that say why and where it came from."""

import pytest

from pipeline.core.dead_letter import DeadLetter, dead_letter
from pipeline.core.outcome import RecordSource
from tests.builders import sha256

SOURCE = RecordSource(1, "rmos.runs.requests", 3, 41)
FIVE_MIB = 5 * 1024 * 1024


def letter(
    key: bytes | None = b"k",
    value: bytes | None = b"{",
    headers: list[tuple[str, bytes | None]] | None = None,
    message: str = "Expected an object.",
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


def test_the_headers_say_why_and_where_it_came_from() -> None:
    assert dict(letter().headers) == {
        "rmos-error-code": b"INVALID_JSON",
        "rmos-error-message": b"Expected an object.",
        "rmos-source-topic": b"rmos.runs.requests",
        "rmos-source-partition": b"3",
        "rmos-source-offset": b"41",
        "rmos-source-timestamp": b"1766066602123",
        "rmos-group": b"rmos.persist",
        "rmos-body-sha256": sha256(b"{").encode(),
        "rmos-attempt": b"1",
    }


@pytest.mark.parametrize("key", [None, b"", b"\xff\x00", b"run_1"])
@pytest.mark.parametrize("value", [b"", b"\xff\x00", b"{}" * 1000])
def test_key_value_and_foreign_headers_are_untouched(key: bytes | None, value: bytes) -> None:
    headers: list[tuple[str, bytes | None]] = [
        ("traceparent", b"00-1-2-01"),
        ("twice", b"a"),
        ("twice", b"\xff"),
        ("none", None),
        ("rmos-error-code", b"OLD"),
    ]
    made = letter(key, value, headers)
    assert (made.key, made.value) == (key, value)
    assert made.headers[: len(headers)] == headers
    # Of two with one name the last counts.
    assert dict(made.headers)["rmos-error-code"] == b"INVALID_JSON"


def test_a_tombstone_has_no_body_to_hash() -> None:
    made = letter(value=None)
    assert made.value is None
    assert not {"rmos-body-sha256", "rmos-body-size"} & dict(made.headers).keys()


def test_a_value_above_5_mib_stays_in_the_source_topic() -> None:
    at_limit, above = letter(value=b"x" * FIVE_MIB), letter(value=b"x" * (FIVE_MIB + 1))
    assert at_limit.value is not None
    assert "rmos-body-size" not in dict(at_limit.headers)
    assert above.value is None
    assert dict(above.headers)["rmos-body-size"] == b"5242881"
    assert dict(above.headers)["rmos-body-sha256"] == sha256(b"x" * (FIVE_MIB + 1)).encode()


def test_the_message_is_printable_ascii_of_at_most_1024_bytes() -> None:
    message = dict(letter(message="Säge\n\x7f" + "x" * 5000).headers)["rmos-error-message"]
    assert message == b"S?ge??" + b"x" * 1018


def test_a_record_without_a_broker_time_counts_as_1970() -> None:
    assert dict(letter(timestamp_ms=-1).headers)["rmos-source-timestamp"] == b"0"


@pytest.mark.parametrize(
    ("headers", "attempt"),
    [
        ([], b"1"),
        ([("rmos-attempt", b"2")], b"2"),
        ([("rmos-attempt", b"2"), ("rmos-attempt", b"3")], b"3"),
        ([("rmos-attempt", b"x")], b"1"),
        ([("rmos-attempt", b"0")], b"1"),
        ([("rmos-attempt", b"2\n")], b"1"),
        ([("rmos-attempt", b"1234567890")], b"1"),
        ([("rmos-attempt", None)], b"1"),
    ],
)
def test_the_attempt_is_what_the_last_redrive_says(
    headers: list[tuple[str, bytes | None]], attempt: bytes
) -> None:
    assert dict(letter(headers=headers).headers)["rmos-attempt"] == attempt
