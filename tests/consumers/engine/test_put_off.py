"""A batch that is put off again and again makes the worker not ready, by its offset."""

import uuid
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from pipeline.consumers.engine import readiness
from pipeline.consumers.engine.liveness import Observation
from pipeline.consumers.engine.readiness import PUT_OFF_LIMIT, PutOff, Standing
from pipeline.errors import BrokerError
from tests.consumers.engine.chunks import engine, records, subscription_of, until


@pytest.fixture
def standing() -> Standing:
    return Standing(f"group-{uuid.uuid4().hex}")


def batch(*places: tuple[int, int]) -> list[Any]:
    return [
        SimpleNamespace(topic="rmos.runs.requests", partition=partition, offset=offset)
        for partition, offset in places
    ]


def test_the_first_tries_are_nothing_and_then_the_offset_is_named(standing: Standing) -> None:
    noted = PutOff(standing)
    for _ in range(PUT_OFF_LIMIT):
        noted.note(batch((3, 17), (3, 18)), "The broker refused.")
        assert standing.reasons == ()
    noted.note(batch((3, 17)), "The broker refused.")
    (reason,) = standing.reasons
    assert "rmos.runs.requests, partition 3, offset 17" in reason
    assert reason.endswith("The broker refused.")
    noted.forget(batch((3, 17)))
    assert standing.reasons == ()


def test_a_batch_that_gets_on_is_never_a_reason(standing: Standing) -> None:
    noted = PutOff(standing)
    for offset in range(3 * PUT_OFF_LIMIT):
        noted.note(batch((3, offset)), "Away.")
    assert standing.reasons == ()


def test_another_partition_that_is_done_ends_nothing(standing: Standing) -> None:
    noted = PutOff(standing)
    for _ in range(PUT_OFF_LIMIT + 1):
        noted.note(batch((3, 17), (4, 1)), "Away.")
    assert "offset 17 on and 1 partitions more" in standing.reasons[0]
    noted.forget(batch((4, 1), (4, 2)))
    assert "partition 3, offset 17" in standing.reasons[0]


def test_a_partition_that_went_to_another_worker_is_no_reason_any_more(standing: Standing) -> None:
    noted = PutOff(standing)
    for _ in range(PUT_OFF_LIMIT + 1):
        noted.note(batch((3, 17)), "The broker refused.")
        noted.note(batch((4, 1)), "Away.")
    noted.keep_only({TopicPartition("rmos.runs.requests", 4)})
    (reason,) = standing.reasons
    assert "partition 4, offset 1 on were" in reason
    assert reason.endswith("Away.")
    noted.keep_only({TopicPartition("rmos.runs.requests", 5)})
    assert standing.reasons == ()


def test_a_reason_names_what_still_waits(standing: Standing) -> None:
    noted = PutOff(standing)
    for _ in range(PUT_OFF_LIMIT + 1):
        noted.note(batch((3, 17), (4, 1)), "Away.")
    noted.forget(batch((3, 17)))
    assert "partition 4, offset 1 on were" in standing.reasons[0]


def test_a_partition_without_a_record_any_more_is_no_reason_for_ever(
    standing: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = PutOff(standing)
    for _ in range(PUT_OFF_LIMIT + 1):
        noted.note(batch((3, 17)), "Away.")
    assert standing.reasons
    monkeypatch.setattr(readiness, "PUT_OFF_KEPT_SECONDS", 0.0)
    noted.forget(batch((5, 1)))
    assert standing.reasons == ()


async def test_a_worker_is_ready_again_once_its_partition_is_another_workers() -> None:
    with engine() as made:
        subscription = subscription_of(made.worker)
        for _ in range(PUT_OFF_LIMIT + 1):
            made.steps.faults["publish", 17] = BrokerError("The broker refused.")
            await subscription._in_flight.put(records([17], 3), {})
            await until(lambda: subscription._in_flight.must_go_back)
            await subscription._in_flight.go_back()
    assert subscription.standing.reasons
    subscription.take_over({TopicPartition("rmos.runs.requests", 3)})
    assert subscription.standing.reasons
    subscription.take_over(set())
    assert subscription.standing.reasons == ()


async def test_a_consumer_without_partitions_is_held_up_by_no_transaction() -> None:
    noted: list[Any] = []

    async def note(waiting: Any) -> None:
        noted.append(waiting)

    await Observation("group", lambda: None, note)._measure()
    assert noted == [{}]
