"""Requests and a stop without a broker, for which aiokafka's clients have no public way."""

import asyncio
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, NodeNotReadyError
from aiokafka.protocol.api import Request, Response


async def ask(
    admin: AIOKafkaAdminClient, request: Request[Any], node_id: int | None = None
) -> Response:
    """Send a request that the admin client has no method for; return the answer.

    Args:
        admin: A client that is connected.
        request: One of aiokafka's, or of ours.
        node_id: The broker to ask; None for any.

    Raises:
        KafkaError: The broker does not answer.
    """
    if node_id is None and (node_id := admin._client.get_random_node()) is None:
        raise NodeNotReadyError
    return await admin._send_request(request, node_id)


def broker_ids(admin: AIOKafkaAdminClient) -> list[int]:
    """Return the ids of the brokers that `admin` knows."""
    return [broker.nodeId for broker in admin._client.cluster.brokers()]


async def close_consumer(consumer: Any) -> None:  # noqa: ANN401 - aiokafka has no types
    """Stop a consumer, whether the broker still answers or not."""
    try:
        # Of a task that has not begun yet, aiokafka lets the cancellation rise and stops half-way.
        await asyncio.sleep(0)
        await consumer.stop()
    except asyncio.CancelledError:
        # Where a broker is gone, aiokafka's `stop` is ended by the cancellation of its own
        # fetch, and leaves the connections and the task that looks for new metadata.
        await consumer._client.close()
        if is_cancelled():
            raise


async def close_producer(producer: AIOKafkaProducer) -> None:
    """Disconnect a producer; unsent records are dropped."""
    # `producer.stop` would flush first, which without a broker never ends; these are its other
    # steps, for which aiokafka has no public name.
    producer._closed = True
    try:
        # A producer that could not go on raises here the error that its records have failed with.
        with suppress(KafkaError):
            await producer._sender.close()
    except asyncio.CancelledError:
        # Of a task that had not begun yet, aiokafka awaits its cancellation and lets it rise, where
        # it would stand for the error that made us close. One that is meant for us goes on.
        if is_cancelled():
            raise
    finally:
        await producer.client.close()


def retrieve_failures(producer: AIOKafkaProducer) -> None:
    """Retrieve every failure of a producer that has given up, which was reported once already.

    aiokafka keeps the same error for each of its batches, and Python logs each that nobody
    retrieves.
    """
    batches = producer._message_accumulator._batches.values()
    waiters = [each._drain_waiter for queue in batches for each in queue]
    for waiter in [*waiters, producer._txn_manager.wait_for_transaction_end()]:
        if waiter is not None and waiter.done() and not waiter.cancelled():
            waiter.exception()


def is_cancelled() -> bool:
    """Return whether this task is cancelled, or another one whose end it awaited.

    aiokafka awaits the tasks that it cancels when closing, and lets their CancelledError rise.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
