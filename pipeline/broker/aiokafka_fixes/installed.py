"""The one call that changes aiokafka for this process; publishers in other programs skip it.

One change is made here: aiokafka 0.14 closes the connection by which a client asks for the cluster
where the question fails, and forgets it where the task is cancelled (`client.py`, `bootstrap`). A
time limit over a client's `start`, or a service that stops meanwhile, leaves a socket open until
the collector comes by.
"""

import asyncio
from typing import Any

from aiokafka import client
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection

from pipeline.broker.aiokafka_fixes.tolerant_records import install_tolerant_records
from pipeline.broker.aiokafka_fixes.unreadable_batches import install_partition_holds

_create_conn = client.create_conn
_bootstrap = AIOKafkaClient.bootstrap
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
    if hold_partitions:
        install_partition_holds()
