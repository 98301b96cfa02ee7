"""A batch that cannot be read holds up only its own partition.

A bit that turned on the broker's disk makes such a batch: the broker sends what it has, and the
checksum does not fit. aiokafka 0.14 lets that rise out of the poll. What the same poll had taken
from other partitions is dropped then, and their positions have moved on: the next commit would
pass over unseen records. Good records before the bad batch, in the same answer,
would never come at all.

So `install_partition_holds` gives aiokafka's fetch results another `getall`. Records before the
batch are given out; the partition then rests, and is fetched again, as another replica may have
the batch whole.
"""

import time
from collections.abc import Collection
from typing import Any

import structlog
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import FetchResult

from pipeline import metrics
from pipeline.broker.aiokafka_fixes.tolerant_records import take_records

REST_SECONDS = 5.0
"""How long a partition rests before the batch is asked for again."""

REST_LIMIT = 3
"""So often a partition may rest at one offset: another replica may have the batch whole."""

_rests: dict[TopicPartition, tuple[int, int]] = {}
"""Where partitions rest, and how often they did there. Of the process, like what is installed."""

_log = structlog.get_logger(__name__)


def install_partition_holds() -> None:
    """Let no unreadable batch raise out of a poll in this process.

    Doing it again changes nothing. Consumers that run already are covered too.
    """
    assert callable(FetchResult.getall)
    FetchResult.getall = getall


def unreadable_offsets(assigned: Collection[TopicPartition]) -> dict[TopicPartition, int]:
    """Return where those of the partitions `assigned` stand that rest again and again."""
    return {
        partition: offset
        for partition, (offset, times) in _rests.items()
        if times > REST_LIMIT and partition in assigned
    }


def getall(fetched: Any, max_records: int | None = None) -> list[Any]:  # noqa: ANN401
    """Return the next records of one partition: the original's steps, but an error ends them."""
    if not fetched.check_assignment(fetched._topic_partition) or not fetched.has_more():
        return []
    if time.monotonic() < getattr(fetched, "_rests_until", 0.0):
        return []
    records: list[Any] = []
    more = True
    try:
        more = take_records(fetched, records, max_records)
    except Exception as error:  # noqa: BLE001 - whatever a parser makes of broken bytes
        _rest(fetched, error)
    else:
        if records:
            _rests.pop(fetched._topic_partition, None)
    fetched._update_position()
    if not more:
        fetched._partition_records = None
    return records


def _rest(fetched: Any, error: Exception) -> None:  # noqa: ANN401
    # While it rests the partition is not fetched; afterwards its records are at their end, and
    # the batch is fetched again.
    fetched._rests_until = time.monotonic() + REST_SECONDS
    partition, offset = fetched._topic_partition, fetched._partition_records.next_fetch_offset
    before = _rests.get(partition)
    _rests[partition] = (offset, before[1] + 1 if before is not None and before[0] == offset else 1)
    metrics.UNREADABLE_BATCHES.labels(partition.topic, partition.partition).inc()
    _log.error(
        "batch cannot be read",
        topic=partition.topic,
        partition=partition.partition,
        offset=offset,
        why=repr(error),
    )
