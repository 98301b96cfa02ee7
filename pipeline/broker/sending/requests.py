"""Sends records one by one, each with a future for the broker's confirmation.

Turns what a caller calls a request into the bytes that are sent, unchanged.
"""

import asyncio
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.structs import RecordMetadata

from pipeline.broker.aiokafka_fixes.clients import close_producer
from pipeline.broker.connection import ANSWER_TIMEOUT_MS, broker_error, start_producer
from pipeline.errors import BrokerError, InputError
from pipeline.settings import Settings
from pipeline.topics import (
    BROKER_MESSAGE_LIMIT_BYTES,
    REQUEST_PARTITIONS,
    REQUEST_VALUE_LIMIT_BYTES,
)
from schemas.advisory_request import AdvisoryRequest
from schemas.fields import RUN_ID_RULE, is_run_id
from schemas.run_request import RunRequest

DELIVERY_TIMEOUT_SECONDS = 30.0
"""Longest wait for the broker's confirmation; long enough for a broker that restarts."""

FLUSH_TIMEOUT_SECONDS = 5.0
"""Longest wait when stopping for what is not confirmed yet."""

_DEFAULT_PARTITION = DefaultPartitioner()

DeliveryReport = asyncio.Future[RecordMetadata]
Headers = Sequence[tuple[str, bytes]]


@dataclass(eq=False, slots=True)
class _Channel:
    """A producer, what it has not confirmed yet, and why it cannot go on, once that is asked."""

    producer: Any
    pending: set[DeliveryReport] = field(default_factory=set)
    cause: asyncio.Task[BrokerError] | None = None


class RequestSender:
    """An idempotent producer with acks=all, replaced by a new one after a failure.

    A record that is reported as failed may still be in the log: the sender of a request sends
    the same body again, and one of the two becomes a duplicate.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._channel: _Channel | None = None
        self._connecting = asyncio.Lock()
        self._closings: dict[asyncio.Task[None], _Channel] = {}

    async def start(self) -> None:
        """Connect.

        Raises:
            BrokerError: No broker answers.
        """
        await self._connected()

    async def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers
    ) -> DeliveryReport:
        """Put a record in line; who awaits this call before the next keeps their order.

        Returns:
            A future of where the broker keeps the record. It fails with BrokerError within
            30 s, or with InputError where the broker finds the record too large.

        Raises:
            InputError: The record is too large. Nothing was sent.
            BrokerError: No broker answers. Nothing was sent.
        """
        channel = await self._connected()
        report = self._new_report(channel)
        try:
            confirmation = await self._enqueue(channel, topic, key, value, headers)
        except BaseException:
            report.cancel()
            raise
        confirmation.add_done_callback(partial(self._resolve, channel, report))
        return report

    async def stop(self) -> None:
        """Wait a little for confirmations, then disconnect; what is left fails."""
        if self._channel is not None:
            self._retire(self._channel)
        if self._closings:
            closings = dict(self._closings)
            await asyncio.wait(closings, timeout=FLUSH_TIMEOUT_SECONDS)
            for channel in closings.values():
                for report in list(channel.pending):
                    _fail(report, _stopped())
                if channel.cause is not None:
                    channel.cause.cancel()
            await asyncio.wait(closings)

    async def _connected(self) -> _Channel:
        async with self._connecting:
            if self._channel is None:
                self._channel = _Channel(
                    await start_producer(
                        self._settings,
                        max_request_size=BROKER_MESSAGE_LIMIT_BYTES,
                        request_timeout_ms=ANSWER_TIMEOUT_MS,
                        partitioner=fixed_partition,
                    )
                )
            return self._channel

    def _new_report(self, channel: _Channel) -> DeliveryReport:
        loop = asyncio.get_running_loop()
        report: DeliveryReport = loop.create_future()
        # From here on the channel stays open for it, also while it waits for room in a batch.
        channel.pending.add(report)
        # aiokafka's idempotent producer tries for ever: the end of our patience is ours to set.
        patience = loop.call_later(DELIVERY_TIMEOUT_SECONDS, self._give_up, channel, report)
        report.add_done_callback(lambda _done: patience.cancel())
        report.add_done_callback(channel.pending.discard)
        return report

    async def _enqueue(
        self,
        channel: _Channel,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
    ) -> asyncio.Future[RecordMetadata]:
        try:
            async with asyncio.timeout(DELIVERY_TIMEOUT_SECONDS):
                confirmation: asyncio.Future[RecordMetadata] = await channel.producer.send(
                    topic, value=value, key=key, headers=list(headers)
                )
        except MessageSizeTooLargeError as error:
            raise _too_large() from error
        except (KafkaError, OSError) as error:
            self._retire(channel)
            raise await broker_error(self._settings, error) from error
        return confirmation

    def _resolve(
        self, channel: _Channel, report: DeliveryReport, confirmation: asyncio.Future[Any]
    ) -> None:
        error = confirmation.exception()
        if error is not None:
            # Its sequence numbers have a gap now, so the broker would refuse all that follows.
            self._retire(channel)
            self._fail_with_cause(channel, report, error)
        elif not report.done():
            report.set_result(confirmation.result())

    def _give_up(self, channel: _Channel, report: DeliveryReport) -> None:
        # Later requests must fail at once: no broker answers.
        self._retire(channel)
        self._fail_with_cause(channel, report, None)

    def _retire(self, channel: _Channel) -> None:
        """Send nothing more by `channel`, and close it once each of its deliveries has ended."""
        if self._channel is channel:
            self._channel = None
            closing = asyncio.create_task(_close(channel), name="rmos request sender closing")
            self._closings[closing] = channel
            closing.add_done_callback(self._closings.pop)

    def _fail_with_cause(
        self, channel: _Channel, report: DeliveryReport, error: BaseException | None
    ) -> None:
        """Let `report` fail once the cause is known; all of a channel have the same."""
        if isinstance(error, MessageSizeTooLargeError):
            _fail(report, _too_large())
            return
        if channel.cause is None:
            channel.cause = asyncio.create_task(
                broker_error(self._settings, error), name="rmos request sender cause"
            )
        channel.cause.add_done_callback(partial(_fail_as_found, report))


def _fail_as_found(report: DeliveryReport, cause: asyncio.Task[BrokerError]) -> None:
    _fail(report, _stopped() if cause.cancelled() else cause.exception() or cause.result())


async def _close(channel: _Channel) -> None:
    while channel.pending:
        await asyncio.wait(set(channel.pending))
    await close_producer(channel.producer)


def fixed_partition(key: bytes | None, partitions: Sequence[int], available: Sequence[int]) -> int:
    """Return the partition of `key`: the same also where partitions were added to its topic."""
    first = sorted(partitions)[:REQUEST_PARTITIONS]
    usable = [number for number in available if number in first]
    found: int = _DEFAULT_PARTITION(key, first, usable or first)
    return found


def _fail(report: DeliveryReport, error: BaseException) -> None:
    if not report.done():
        report.set_exception(error)
        # Read once, so that asyncio does not log an exception that was never awaited.
        report.exception()


def _stopped() -> BrokerError:
    return BrokerError("The publisher was stopped before the broker confirmed the record.")


def _too_large() -> InputError:
    return InputError(
        f"The record is too large: its topic takes at most {BROKER_MESSAGE_LIMIT_BYTES:,} bytes, "
        "or what `rmos topics check` shows. Upload large blobs and name them as attachments."
    )


Request = Mapping[str, Any] | RunRequest | AdvisoryRequest | bytes
"""A request as the caller has it: an object, a model, or its JSON text in UTF-8."""


def new_run_id() -> str:
    """Return the id of a new run; one that is made in a later millisecond sorts behind it.

    Where ids come in no order, each run of a large store changes a page of its own of the index.
    """
    # As in a ULID, 48 bits of milliseconds since 1970 and 80 random bits.
    return f"run_{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


def encode_request(request: Request) -> tuple[str, bytes]:
    """Return the run_id and the body of a request.

    A mapping is written as `json.dumps` writes it, a model with the fields that were set, and
    bytes stay as they are.

    Raises:
        InputError: It is no JSON object, JSON cannot express a value, its run_id is missing or
            not of the pattern, or it is above 4 MiB.
    """
    if isinstance(request, bytes):
        document, value = _parsed(request), request
    else:
        document = _document(request)
        value = _dumped(document)
    run_id = document.get("run_id")
    if not isinstance(run_id, str) or not is_run_id(run_id):
        raise InputError(f"Expected a run_id of {RUN_ID_RULE}; found {run_id!r:.120}.")
    if len(value) > REQUEST_VALUE_LIMIT_BYTES:
        raise InputError(
            f"The request {run_id} has {len(value):,} bytes, the limit is "
            f"{REQUEST_VALUE_LIMIT_BYTES:,}: upload large blobs and name them by their hashes."
        )
    return run_id, value


def _document(request: Mapping[str, Any] | RunRequest | AdvisoryRequest) -> dict[str, Any]:
    if isinstance(request, RunRequest | AdvisoryRequest):
        return request.model_dump(exclude_unset=True)
    return dict(request)


def _dumped(document: dict[str, Any]) -> bytes:
    try:
        text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode()
    # NaN, an integer of too many digits and a lone surrogate are ValueErrors, a date a TypeError.
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"The request has a value that JSON cannot express: {error}.") from error


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        # Decoded here, as json.loads would take UTF-16 too.
        document = json.loads(body.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(f"The request is no JSON in UTF-8: {error}.") from error
    if not isinstance(document, dict):
        raise InputError(
            f"Expected a request to be a JSON object, found {type(document).__name__}."
        )
    return document


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
