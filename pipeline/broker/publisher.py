"""The publishing clients: they send requests and wait for the event of each.

This is what a CAM system or an explainer engine imports; the base install has all that it needs.

    async with RunPublisher() as publisher:
        event = await publisher.publish_and_wait(request)
        if event.may_cut:
            ...
"""

import asyncio
import time
from typing import Final, Generic, Self

from pipeline.broker.admin.topics import topic_partitions
from pipeline.broker.event_reader import EventFuture, EventReader, EventTail
from pipeline.broker.receipts import Event, Published, Receipt, published_at
from pipeline.broker.sending.requests import (
    DeliveryReport,
    Headers,
    Request,
    RequestSender,
    encode_request,
)
from pipeline.core.record import Located, RecordId
from pipeline.errors import InputError
from pipeline.settings import Settings, read_settings
from schemas.advisory_event import AdvisoryEvent
from schemas.run_event import RunEvent

LOOK_BACK_SECONDS: Final = 60.0
"""How old an event may be that is asked for after its record was published."""


class RequestPublisher(Generic[Event]):
    """Publishes requests of one kind from one event loop, any number of them at once.

    What the caller gives is sent unchanged: nothing is added, defaulted or normalised, no
    header either. The events of all requests are read by one consumer, made with the first
    request whose event is wanted, and before that request is sent.
    """

    _area: str
    _event_shape: type[Event]

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        bootstrap_servers: str | None = None,
        prefix: str | None = None,
        tail: EventTail | None = None,
    ) -> None:
        """Prepare a publisher; `start` or `async with` connects it.

        Args:
            settings: All settings; None to read them from the environment.
            bootstrap_servers: In place of that of the settings.
            prefix: In place of that of the settings.
            tail: Takes every event that is read, for people; None for none.

        Raises:
            InputError: A setting has a value that it cannot have.
        """
        overrides = {"bootstrap_servers": bootstrap_servers, "prefix": prefix}
        if settings is None:
            self._settings = read_settings(**overrides)
        else:
            given = {name: value for name, value in overrides.items() if value is not None}
            self._settings = settings.model_copy(update=given)
        self._requests = f"{self._settings.prefix}.{self._area}.requests"
        self._events = f"{self._settings.prefix}.{self._area}.events"
        self._sender = RequestSender(self._settings)
        self._tail = tail
        self._reader: EventReader | None = None
        self._event_partitions: list[int] = []
        self._starting_reader = asyncio.Lock()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Connect.

        Raises:
            TopicsError: A topic is missing.
            BrokerError: No broker answers.
        """
        there = await topic_partitions(self._settings, [self._requests, self._events])
        self._event_partitions = [each.partition for each in there if each.topic == self._events]
        await self._sender.start()

    async def stop(self) -> None:
        """Disconnect, after at most 5 s for what the broker has not acknowledged yet."""
        await self._sender.stop()
        if self._reader is not None:
            await self._reader.stop()

    async def publish(self, request: Request, headers: Headers = ()) -> Published:
        """Publish a request; return where the broker keeps it, once it has acknowledged it.

        Raises:
            InputError: It has no usable run_id, is no JSON or too large. Nothing was sent.
            BrokerError: The broker did not acknowledge it; it may have it all the same, and the
                same body sent again is a duplicate, which is success.
        """
        run_id, value = encode_request(request)
        report = await self._send(run_id.encode(), value, headers)
        return published_at(await report, run_id)

    async def publish_raw(
        self, key: bytes | None, value: bytes | None, headers: Headers = ()
    ) -> Published:
        """Publish a record as it is, whatever it is.

        Raises:
            InputError: It has neither key nor value, or is above 5 MiB. Nothing was sent.
            BrokerError: As `publish`.
        """
        return published_at(await (await self._send(key, value, headers)), None)

    async def publish_and_wait(
        self, request: Request, timeout_seconds: float | None = None, headers: Headers = ()
    ) -> Event:
        """Publish a request and wait for its last event, as `Receipt.event` does.

        Raises:
            InputError: As `publish`. Nothing was sent.
            BrokerError: As `publish`.
            ReceiptTimeoutError: It is in the log and will be judged, but was not in time.
        """
        return await (await self.send(request, headers)).event(timeout_seconds)

    async def send(self, request: Request, headers: Headers = ()) -> Receipt[Event]:
        """Put a request in line; its receipt gives acknowledgement and event, each when wanted.

        Many can be on their way at once. Who awaits each call before the next keeps their
        order. A receipt that is thrown away is no longer waited for.

        Raises:
            InputError: As `publish`. Nothing was sent.
            BrokerError: No broker answers. Nothing was sent.
        """
        run_id, value = encode_request(request)
        return await self._send_for_event(run_id.encode(), value, headers, run_id)

    async def send_raw(
        self, key: bytes | None, value: bytes | None, headers: Headers = ()
    ) -> Receipt[Event]:
        """Put a record in line as it is, as `send` does.

        Raises:
            InputError: As `publish_raw`. Nothing was sent.
            BrokerError: No broker answers. Nothing was sent.
        """
        return await self._send_for_event(key, value, headers, None)

    async def event_of(
        self,
        record: Located,
        timeout_seconds: float | None = None,
        *,
        look_back_seconds: float = LOOK_BACK_SECONDS,
    ) -> Event:
        """Wait for the last event of a record that was published here or elsewhere.

        A redrive is one, or what another producer sent. The wait is that of `Receipt.event`. Each
        call has a consumer of its own: for a request of this publisher, `send` and
        `publish_and_wait` cost less.

        Args:
            record: What `publish` returned, or any other record of the topic of the requests.
            timeout_seconds: Longest wait; None for RMOS_RECEIPT_TIMEOUT_SECONDS.
            look_back_seconds: How old the event may be, by the clocks of this machine and of the
                worker. An older one is not found.

        Raises:
            InputError: It is of another topic, or the publisher is not started.
            ReceiptTimeoutError: It was not judged in time, or its event is older.
            BrokerError: Events cannot be read.
        """
        if record.topic != self._requests:
            message = f"Expected a record of {self._requests}, found {RecordId.of(record)}."
            raise InputError(message)
        if not self._event_partitions:
            raise InputError("The publisher is not started: use it in `async with`, or start it.")
        loop = asyncio.get_running_loop()
        report: DeliveryReport = loop.create_future()
        report.set_result(record)
        event = EventFuture(loop=loop)
        # As events follow the partition of their record.
        partition = record.partition % len(self._event_partitions)
        reader = EventReader(self._settings, self._events, [partition])
        reader.matcher.expect(reader.matcher.announce(), RecordId.of(record), event)
        try:
            await reader.start(int((time.time() - look_back_seconds) * 1000))
            return await self._receipt(report, None, event).event(timeout_seconds)
        finally:
            await reader.stop()

    async def read_events(self) -> None:
        """Let events be read from now on, also those about requests of others.

        Raises:
            BrokerError: No broker answers.
        """
        await self._live_reader()

    async def _send_for_event(
        self, key: bytes | None, value: bytes | None, headers: Headers, run_id: str | None
    ) -> Receipt[Event]:
        matcher = (await self._live_reader()).matcher
        ticket = matcher.announce()
        try:
            report = await self._send(key, value, headers)
        except BaseException:
            matcher.withdraw(ticket)
            raise
        event = EventFuture(loop=asyncio.get_running_loop())

        def expect(report: DeliveryReport) -> None:
            if report.cancelled() or report.exception() is not None:
                matcher.withdraw(ticket)
            else:
                kept = report.result()
                matcher.expect(ticket, RecordId.of(kept), event)

        report.add_done_callback(expect)
        return self._receipt(report, run_id, event)

    def _receipt(
        self, report: DeliveryReport, run_id: str | None, event: EventFuture
    ) -> Receipt[Event]:
        timeout_seconds = self._settings.receipt_timeout_seconds
        return Receipt(report, run_id, timeout_seconds, event, self._event_shape)

    async def _send(
        self, key: bytes | None, value: bytes | None, headers: Headers
    ) -> DeliveryReport:
        if key is None and value is None:
            raise InputError("Expected a record with a key or a value. Nothing was sent.")
        return await self._sender.send(self._requests, key, value, headers)

    async def _live_reader(self) -> EventReader:
        async with self._starting_reader:
            if self._reader is None or not self._reader.is_alive:
                reader = EventReader(
                    self._settings, self._events, self._event_partitions, self._tail
                )
                await reader.start()
                self._reader = reader
            return self._reader


__all__ = [
    "AdvisoryPublisher",
    "Headers",
    "Published",
    "Receipt",
    "Request",
    "RequestPublisher",
    "RunPublisher",
]


class RunPublisher(RequestPublisher[RunEvent]):
    """Publishes run requests; of an event a machine looks at `may_cut` alone.

    The hash of the body decides what is a duplicate, so nothing is added to it. Whether a
    request is complete is judged by the pipeline, which keeps a record also of those that are
    not.
    """

    _area = "runs"
    _event_shape = RunEvent


class AdvisoryPublisher(RequestPublisher[AdvisoryEvent]):
    """Publishes advisory requests.

    One whose run is not there yet waits. Its event reports this if the time is over by then; the
    advisory keeps its id, and is linked once the run comes.
    """

    _area = "advisories"
    _event_shape = AdvisoryEvent
