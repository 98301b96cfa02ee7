"""What a dead letter carries of a record: all of it, or what is small and the hash of the rest."""

import hashlib
from typing import Any

import pytest

from pipeline.core.dead_letters.carried_record import (
    CARRIED_LIMIT_BYTES,
    HEADER_FRAME_BYTES,
    HEADER_LIMIT_BYTES,
    HEADERS_LIMIT_BYTES,
    KEY_LIMIT_BYTES,
    AllHeaders,
    Header,
    LeftAtSource,
    carried_record,
    record_bytes,
    summarized_record,
)
from pipeline.topics import BROKER_MESSAGE_LIMIT_BYTES, DEAD_LETTER_MESSAGE_LIMIT_BYTES
from tests.builders import sha256

MEBIBYTE = 1024 * 1024
LARGE = b"f" * (8 * MEBIBYTE)


def hash_by_rule(headers: list[Header]) -> str:
    """The rule of `docs/dead-letters.md`, written down a second time."""
    data = b""
    for name, value in headers:
        raw = name.encode(errors="surrogateescape")
        data += len(raw).to_bytes(4, "big") + raw
        data += b"\xff" * 4 if value is None else len(value).to_bytes(4, "big") + value
    return hashlib.sha256(data).hexdigest()


def size_of(carried: Any) -> int:
    told = [(name, text.encode()) for name, text in carried.summary.items()]
    return record_bytes(carried.key, carried.value, [*carried.headers, *told])


def test_a_record_of_the_largest_size_that_comes_uncompressed_is_carried_whole() -> None:
    value = b"x" * (BROKER_MESSAGE_LIMIT_BYTES // 2)
    headers: list[Header] = [("document", value), ("none", None), ("twice", b""), ("twice", b"2")]
    carried = carried_record(b"run_1", value, headers)
    assert (carried.key, carried.value, carried.headers) == (b"run_1", value, headers)
    assert carried.summary == {"rmos-body-sha256": sha256(value)}


def test_a_large_header_is_left_and_the_small_ones_around_it_are_carried() -> None:
    headers: list[Header] = [("first", b"1"), ("document", LARGE), ("caf\udce9", None)]
    carried = carried_record(b"run_1", b"{}", headers)
    assert (carried.key, carried.value) == (b"run_1", b"{}")
    assert carried.headers == [headers[0], headers[2]]
    assert carried.summary == {
        "rmos-body-sha256": sha256(b"{}"),
        "rmos-headers-sha256": hash_by_rule(headers),
        "rmos-headers-size": str(6 + 8 + len(LARGE) + 4),
        "rmos-headers-count": "3",
    }


def test_a_large_key_is_left() -> None:
    carried = carried_record(LARGE, b"{}", [("small", b"1")])
    assert (carried.key, carried.value, carried.headers) == (None, b"{}", [("small", b"1")])
    assert carried.summary["rmos-key-sha256"] == sha256(LARGE)
    assert carried.summary["rmos-key-size"] == str(len(LARGE))
    assert "rmos-headers-sha256" not in carried.summary


@pytest.mark.parametrize(
    ("key", "value", "headers"),
    [
        pytest.param(LARGE, LARGE, [("a", LARGE)], id="everything large"),
        pytest.param(None, None, [("n" * len(LARGE), None)], id="a long name"),
        pytest.param(b"k", b"{}", [("a", b"x" * 100)] * 60_000, id="many headers"),
        pytest.param(
            b"k" * KEY_LIMIT_BYTES,
            b"v" * BROKER_MESSAGE_LIMIT_BYTES,
            [("a", b"x" * (HEADER_LIMIT_BYTES - HEADER_FRAME_BYTES - 1))] * 100,
            id="as much as is ever carried of one that is cut",
        ),
    ],
)
def test_what_is_carried_of_any_record_is_within_the_limit(
    key: bytes | None, value: bytes | None, headers: list[Header]
) -> None:
    carried = carried_record(key, value, headers)
    assert size_of(carried) <= CARRIED_LIMIT_BYTES < DEAD_LETTER_MESSAGE_LIMIT_BYTES
    assert sum(map(len, (name for name, _ in carried.headers))) <= HEADERS_LIMIT_BYTES
    assert carried.summary["rmos-headers-count"] == str(len(headers))
    assert size_of(summarized_record(key, value, headers)) < 1024


def test_what_was_left_as_the_record_was_read_is_reported_by_its_hash() -> None:
    left = LeftAtSource(900_000_000, sha256(b"of all of it"))
    all_headers = AllHeaders(2_000_000, 5_000_000, sha256(b"of them"))
    carried = carried_record(left, left, [("kept", b"1")], all_headers)
    assert (carried.key, carried.value, carried.headers) == (None, None, [("kept", b"1")])
    assert carried.summary == {
        "rmos-body-sha256": left.sha256,
        "rmos-body-size": "900000000",
        "rmos-key-sha256": left.sha256,
        "rmos-key-size": "900000000",
        "rmos-headers-sha256": all_headers.sha256,
        "rmos-headers-size": "5000000",
        "rmos-headers-count": "2000000",
    }
    assert summarized_record(left, left, [("kept", b"1")], all_headers).summary == carried.summary


def test_a_record_without_anything_has_nothing_to_tell() -> None:
    for carry in (carried_record, summarized_record):
        carried = carry(None, None, [])
        assert (carried.key, carried.value, carried.headers, carried.summary) == (
            None,
            None,
            [],
            {},
        )
