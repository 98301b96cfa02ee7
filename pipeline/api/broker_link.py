"""The publishers of the API, connected when first needed: reading works without a broker."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from pydantic import BaseModel

from pipeline.broker.request_publisher import RequestPublisher

Event = TypeVar("Event", bound=BaseModel)


class BrokerLink(Generic[Event]):
    """Connects one publisher for all requests; who comes meanwhile waits for the same attempt."""

    def __init__(
        self,
        make: Callable[[], RequestPublisher[Event]],
        check_broker: Callable[[], Awaitable[None]],
        holder_of: Callable[[str, int, int], Awaitable[object | None]],
    ) -> None:
        """Prepare; nothing is connected.

        Args:
            make: Makes a publisher.
            check_broker: Raises where the broker is not that of the store.
            holder_of: Says what holds up the record at a topic, partition and offset, if anything.
        """
        self.holder_of = holder_of
        self._make = make
        self._check_broker = check_broker
        self._connected: RequestPublisher[Event] | None = None
        self._attempt: asyncio.Task[RequestPublisher[Event]] | None = None

    async def publisher(self) -> RequestPublisher[Event]:
        """Return the connected publisher.

        Raises:
            BrokerError: No broker answers, or topics are missing.
            StoreNotReadyError: The broker is not that of the store.
        """
        if self._connected is not None:
            return self._connected
        if self._attempt is None:
            self._attempt = asyncio.create_task(self._connect(), name="rmos api publisher")
        # One client that goes away must not end the attempt of the others.
        return await asyncio.shield(self._attempt)

    async def stop(self) -> None:
        """Disconnect."""
        if self._attempt is not None:
            self._attempt.cancel()
            await asyncio.wait([self._attempt])
        if self._connected is not None:
            await self._connected.stop()

    async def _connect(self) -> RequestPublisher[Event]:
        try:
            await self._check_broker()
            publisher = self._make()
            try:
                await publisher.start()
            except BaseException:
                await publisher.stop()
                raise
            self._connected = publisher
            return publisher
        finally:
            self._attempt = None
