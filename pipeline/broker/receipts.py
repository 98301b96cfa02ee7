"""The receipt of a published request: its offset at the broker, and later its event."""

import asyncio
from dataclasses import dataclass
from typing import Generic, TypeVar

from aiokafka.structs import RecordMetadata
from pydantic import BaseModel, ValidationError

from pipeline.broker.event_reader import EventFuture
from pipeline.broker.sending.requests import DeliveryReport
from pipeline.core.record import RecordId
from pipeline.errors import BrokerError, ReceiptTimeoutError

Event = TypeVar("Event", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Published:
    """Where the broker keeps a request that it has acknowledged.

    Attributes:
        run_id: None where the record was published raw.
    """

    topic: str
    partition: int
    offset: int
    run_id: str | None

    def __str__(self) -> str:
        """Return the form in which messages name it."""
        return str(RecordId.of(self))


@dataclass(eq=False, slots=True)
class Receipt(Generic[Event]):
    """A request on its way: the broker acknowledges it, later an event reports its outcome."""

    _report: DeliveryReport
    _run_id: str | None
    _timeout_seconds: float
    _event: EventFuture
    _shape: type[Event]

    async def published(self) -> Published:
        """Wait until the broker has the request, durable by its own rules.

        Raises:
            BrokerError: It did not confirm; it may have the request all the same.
            InputError: The record is too large for it.
        """
        # Others may wait for the same: one that gives up must not end it for all.
        return published_at(await asyncio.shield(self._report), self._run_id)

    async def event(self, timeout_seconds: float | None = None) -> Event:
        """Wait for the last event of this very request.

        Where its outcome is waiting, and nothing else by the end of the time, that is returned.

        Args:
            timeout_seconds: Longest wait, from this call and the broker's acknowledgement on,
                whichever is later. None for RMOS_RECEIPT_TIMEOUT_SECONDS.

        Raises:
            ReceiptTimeoutError: It was not judged in time; it will be.
            BrokerError: The broker did not acknowledge it, or its events cannot be read.
        """
        published = await self.published()
        seconds = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                value = await asyncio.shield(self._event)
        except TimeoutError:
            if self._event.interim is None:
                raise _not_in_time(published, seconds) from None
            value = self._event.interim
        except BrokerError as error:
            # One error for all that waited; each gets the place of its own request.
            raise BrokerError(f"{error} {_how_to_retry(published)}") from error
        return _validated(value, self._shape, published)


def published_at(kept: RecordMetadata, run_id: str | None) -> Published:
    """Return the record that the broker confirmed."""
    return Published(kept.topic, kept.partition, kept.offset, run_id)


def _validated(value: bytes, shape: type[Event], published: Published) -> Event:
    try:
        # A later worker may add an optional field; its version fixes the meaning of the others.
        return shape.model_validate_json(value, extra="ignore")
    except ValidationError as error:
        raise BrokerError(
            f"The event of {published} is not of the form that this release knows: install the "
            f"release of the pipeline ({error.error_count()} differences)."
        ) from error


def _not_in_time(published: Published, seconds: float) -> ReceiptTimeoutError:
    return ReceiptTimeoutError(
        f"No event within {seconds:g} s: the pipeline is behind or does not run. "
        + _how_to_retry(published)
    )


def _how_to_retry(published: Published) -> str:
    name = "The record" if published.run_id is None else f"The request {published.run_id}"
    return (
        f"{name} is in the log at {published} and will be judged; to ask again, send the same "
        "body with the same run_id: a duplicate is success."
    )
