"""A client that is cancelled while it asks for the cluster closes the connection that it asks by.

aiokafka 0.14 closes it where the question fails and forgets it where the task is cancelled
(`client.py`, `bootstrap`). A time limit over a client's `start`, or a service that stops meanwhile,
leaves a socket open until the collector comes by.
"""

import asyncio
from typing import Any

from aiokafka import client
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection

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
