"""The one call that changes aiokafka for this process; publishers in other programs skip it.

Three changes are made here. Two of them are of what aiokafka 0.14 leaves until the collector comes
by:

* It closes the connection by which a client asks for the cluster where the question fails, and
  forgets it where the task is cancelled (`client.py`, `bootstrap`). A time limit over a client's
  `start`, or a service that stops meanwhile, leaves a socket open.
* The records of an answer hold their iterator, which holds them (`consumer/fetcher.py`,
  `PartitionRecords`). An answer whose records were not all taken, as by a consumer that is
  closed or goes to another offset, keeps its bytes: 1 MiB and more for each partition.

The third is that it packs batches by lz4 at level 9 (`codec.py`), and has no option for another.
An event takes 9 us so; at level 1 it takes 0.6, and 434 bytes in place of 360.
"""

import asyncio
import weakref
from collections.abc import Iterator
from typing import Any

from aiokafka import ConsumerRecord, client
from aiokafka.client import AIOKafkaClient
from aiokafka.codec import lz4_encode
from aiokafka.conn import AIOKafkaConnection
from aiokafka.consumer.fetcher import PartitionRecords

from pipeline.broker.aiokafka_fixes.tolerant_records import install_tolerant_records
from pipeline.broker.aiokafka_fixes.unreadable_batches import install_partition_holds

_create_conn = client.create_conn
_bootstrap = AIOKafkaClient.bootstrap
_unpack_records = PartitionRecords._unpack_records
_opened: dict[asyncio.Task[Any] | None, list[AIOKafkaConnection]] = {}
"""What each task has opened that is in a bootstrap."""


def install_closed_bootstraps() -> None:
    """Let no cancelled start of a client in this process leave a connection open."""
    client.create_conn = _noted_conn
    AIOKafkaClient.bootstrap = _closed_bootstrap


async def _noted_conn(*address: Any, **options: Any) -> AIOKafkaConnection:  # noqa: ANN401
    connection = await _create_conn(*address, **options)
    if (opened := _opened.get(asyncio.current_task())) is not None:
        opened.append(connection)
    return connection


async def _closed_bootstrap(self: AIOKafkaClient) -> None:
    task = asyncio.current_task()
    opened = _opened[task] = []
    try:
        await _bootstrap(self)
    except BaseException:
        for connection in opened:
            connection.close()
        raise
    finally:
        del _opened[task]


def install_freed_answers() -> None:
    """Let an answer be freed at once that a consumer of this process lets go of."""
    PartitionRecords._unpack_records = _unpacked_without_cycle


def _unpacked_without_cycle(self: PartitionRecords) -> Iterator[ConsumerRecord]:
    return _unpack_records(weakref.proxy(self))  # type: ignore[no-any-return]


def install_fast_lz4() -> None:
    """Let the producers of this process pack at the lowest level."""
    lz4_encode.__defaults__ = (1,)


def install(*, hold_partitions: bool = False) -> None:
    """Let every consumer of this process read what the broker accepted, and no client leak.

    Doing it again changes nothing. Consumers that run already are covered too.

    Args:
        hold_partitions: Whether a batch that cannot be read lets its partition rest, as a
            worker needs it; else it is an error, as a command needs it. A process that has
            once held partitions goes on to do so.
    """
    install_tolerant_records()
    install_closed_bootstraps()
    install_freed_answers()
    install_fast_lz4()
    if hold_partitions:
        install_partition_holds()
