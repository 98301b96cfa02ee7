"""How many records a poll asks for: near 16 MiB, whatever their size."""

from types import SimpleNamespace
from typing import Any

from pipeline.consumers.engine.group_consumer import FIRST_RECORDS, POLL_BYTES, PollSize


def polled_record(value: bytes | None, headers: tuple[Any, ...] = ()) -> Any:
    return SimpleNamespace(key=None, value=value, headers=headers)


def polled(count: int, size_bytes: int) -> list[Any]:
    return [polled_record(b"x" * size_bytes) for _ in range(count)]


def test_the_first_poll_is_small_and_the_next_ones_double_up_to_the_limit() -> None:
    size = PollSize(limit_records=1000)
    asked = []
    for _ in range(6):
        asked.append(size.records)
        size.learn(polled(size.records, 100))
    assert asked == [FIRST_RECORDS, 128, 256, 512, 1000, 1000]


def test_large_records_are_asked_for_few_at_a_time() -> None:
    size = PollSize(limit_records=2000)
    size.learn(polled(10, 4 * 1024 * 1024))
    assert size.records == POLL_BYTES // (4 * 1024 * 1024)


def test_a_record_larger_than_a_poll_is_asked_for_alone() -> None:
    size = PollSize(limit_records=2000)
    size.learn(polled(1, POLL_BYTES + 1))
    assert size.records == 1


def test_records_without_a_value_and_empty_polls_are_no_size() -> None:
    size = PollSize(limit_records=2000)
    size.learn([])
    assert size.records == FIRST_RECORDS
    size.learn([polled_record(None)])
    assert size.records == 2 * FIRST_RECORDS


def test_a_limit_below_the_first_poll_is_kept() -> None:
    assert PollSize(limit_records=5).records == 5


def test_large_headers_count_like_large_values() -> None:
    size = PollSize(limit_records=2000)
    size.learn([polled_record(b"{}", (("document", b"x" * 8 * 1024 * 1024),))] * 10)
    assert size.records == 1
