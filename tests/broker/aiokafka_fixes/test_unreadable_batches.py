"""An unreadable batch ends the records before it, and never raises out of a poll."""

import gzip
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.errors import CorruptRecordException

from pipeline import metrics
from pipeline.broker.aiokafka_fixes import streamed_batch, tolerant_records, unreadable_batches
from pipeline.broker.aiokafka_fixes.tolerant_records import (
    TolerantRecords,
    bounded_getall,
    install_tolerant_records,
)
from pipeline.broker.aiokafka_fixes.unreadable_batches import (
    REST_LIMIT,
    getall,
    install_partition_holds,
    unreadable_offsets,
)
from tests.broker.aiokafka_fixes.record_batches import GZIP, batch_bytes, record_bytes

ORIGINAL = tolerant_records._AIOKAFKAS_GETALL
PLACE = TopicPartition("t", 3)


def batch(base_offset: int, *, broken: bool = False) -> bytes:
    records = b"".join(record_bytes(delta, b"k", b"v") for delta in range(3))
    data = batch_bytes(records, 3, base_offset=base_offset)
    return data[:-1] + b"\x02" if broken else data


class Assignment:
    """The one partition of a consumer that is assigned, and its position."""

    active = True

    def __init__(self) -> None:
        self.state = SimpleNamespace(paused=False, position=0, consumed_to=self._move)

    def _move(self, position: int) -> None:
        self.state.position = position

    def state_value(self, _place: TopicPartition) -> SimpleNamespace:
        return self.state


def result(data: bytes, assignment: Assignment) -> FetchResult:
    records = fetcher.PartitionRecords(
        PLACE, TolerantRecords(data), [], assignment.state.position, None, None, True, 1
    )
    return FetchResult(PLACE, assignment=assignment, partition_records=records, backoff=0)


def offsets(found: list[Any]) -> list[int]:
    return [each.offset for each in found]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(unreadable_batches, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def counted() -> float:
    return metrics.UNREADABLE_BATCHES.labels("t", 3)._value.get()  # type: ignore[no-any-return]


def test_aiokafka_still_drops_what_it_had_and_raises() -> None:
    """Once this fails, the pin can move and `unreadable_batches` can go."""
    assignment = Assignment()
    with pytest.raises(CorruptRecordException):
        ORIGINAL(result(batch(0) + batch(3, broken=True), assignment))
    assert assignment.state.position == 0


@pytest.mark.parametrize("most", [None, 1, 2, 3, 4, 6, 7])
def test_whole_batches_are_given_out_as_the_original_does(most: int | None) -> None:
    steps = []
    for each in (ORIGINAL, bounded_getall, getall):
        assignment = Assignment()
        fetched = result(batch(0) + batch(3), assignment)
        steps.append([])
        while fetched.has_more():
            found = offsets(each(fetched, most))
            steps[-1].append((found, assignment.state.position, fetched.has_more()))
    assert steps[0] == steps[1] == steps[2]


def test_records_before_the_batch_are_given_out_and_the_partition_rests(
    clock: SimpleNamespace,
) -> None:
    assignment, before = Assignment(), counted()
    fetched = result(batch(0) + batch(3, broken=True) + batch(6), assignment)
    assert offsets(getall(fetched, 2)) == [0, 1]
    assert offsets(getall(fetched, 2)) == [2]
    assert assignment.state.position == 3
    clock.now += unreadable_batches.REST_SECONDS - 0.1
    # While it has more, the fetcher does not ask for this partition again.
    assert (getall(fetched), fetched.has_more()) == ([], True)
    assert counted() == before + 1
    clock.now += 0.2
    assert (getall(fetched), fetched.has_more()) == ([], False)
    assert assignment.state.position == 3

    again = result(batch(3), assignment)
    assert offsets(getall(again)) == [3, 4, 5]


@pytest.mark.usefixtures("clock")
def test_a_partition_that_was_given_away_rests_no_longer() -> None:
    assignment = Assignment()
    fetched = result(batch(0, broken=True), assignment)
    assert (getall(fetched), fetched.has_more()) == ([], True)
    assignment.active = False
    assert (getall(fetched), fetched.has_more()) == ([], False)


def test_it_is_installed_by_a_call_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FetchResult, "getall", ORIGINAL)
    running = result(batch(0, broken=True), Assignment())
    install_partition_holds()
    install_partition_holds()
    assert FetchResult.getall is getall
    assert running.getall() == []
    monkeypatch.delattr(FetchResult, "getall")
    with pytest.raises(AttributeError):
        install_partition_holds()


@pytest.mark.parametrize("take", [bounded_getall, getall])
def test_records_are_taken_by_their_size(monkeypatch: pytest.MonkeyPatch, take: Any) -> None:
    monkeypatch.setattr(tolerant_records, "TAKEN_LIMIT_BYTES", 1000)
    records = b"".join(record_bytes(delta, b"k", bytes(400)) for delta in range(7))
    fetched, counts = result(batch_bytes(records, 7), Assignment()), []
    while fetched.has_more():
        counts.append(len(take(fetched)))
    assert counts == [3, 3, 1]


@pytest.mark.parametrize("take", [bounded_getall, getall])
def test_records_that_are_not_kept_are_taken_by_what_was_read_of_them(
    monkeypatch: pytest.MonkeyPatch, take: Any
) -> None:
    monkeypatch.setattr(tolerant_records, "INFLATED_LIMIT_BYTES", 0)
    monkeypatch.setattr(streamed_batch, "BROKER_MESSAGE_LIMIT_BYTES", 300)
    monkeypatch.setattr(tolerant_records, "PASSED_LIMIT_BYTES", 500)
    records = b"".join(record_bytes(delta, b"k", bytes(400)) for delta in range(5))
    packed = batch_bytes(gzip.compress(records, 1), 5, codec=GZIP)
    fetched, counts = result(packed, Assignment()), []
    while fetched.has_more():
        counts.append(len(take(fetched)))
    assert counts == [2, 2, 1]


def test_the_bound_comes_with_the_parser_and_leaves_the_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fetcher, "MemoryRecords", fetcher.MemoryRecords)
    monkeypatch.setattr(FetchResult, "getall", ORIGINAL)
    install_tolerant_records()
    assert FetchResult.getall is bounded_getall
    install_partition_holds()
    install_tolerant_records()
    assert FetchResult.getall is getall


@pytest.mark.usefixtures("clock")
def test_a_partition_that_rests_again_and_again_is_named_until_it_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unreadable_batches, "_rests", {})
    assignment = Assignment()
    for _ in range(REST_LIMIT):
        getall(result(batch(0) + batch(3, broken=True), assignment))
        assert unreadable_offsets({PLACE}) == {}
        assignment.state.position = 3
    getall(result(batch(3, broken=True), assignment))
    assert unreadable_offsets({PLACE}) == {PLACE: 3}
    assert unreadable_offsets(set()) == {}
    assert offsets(getall(result(batch(3), assignment))) == [3, 4, 5]
    assert unreadable_offsets({PLACE}) == {}
