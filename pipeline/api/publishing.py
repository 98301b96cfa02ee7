"""The steps that runs and advisories share: publish one request, and wait for its event."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from fastapi import Request
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from pydantic import BaseModel

from pipeline.api.answers import ApiError
from pipeline.broker.publisher import RequestPublisher
from pipeline.broker.sending.requests import Headers
from pipeline.core.envelope import Parsed
from pipeline.core.json.strict import InvalidJsonError, parse_object
from pipeline.errors import BrokerError, InputError, ReceiptTimeoutError, StoreNotReadyError
from schemas.http_answers import RUNS_PATH
from schemas.run_event import EventError
from schemas.timestamps import format_timestamp

Event = TypeVar("Event", bound=BaseModel)

_TRACEPARENT_LIMIT_CHARACTERS = 200
_TRACESTATE_LIMIT_BYTES = 512
"""W3C lets a longer one be dropped, and a worker reads none."""

_propagator = TraceContextTextMapPropagator()
_STATUSES = {"ARTIFACT_CORRUPT": 500, "INTERNAL_ERROR": 500, "RUN_NOT_FOUND": 404}
"""Of rejections that are not the client's fault, or that name no run; of any other 422."""


@dataclass(eq=False)
class LazyPublisher(Generic[Event]):
    """One publisher for all requests, connected when first needed: reading works without a broker.

    Requests that come meanwhile wait for the same attempt.

    Attributes:
        make: Makes a publisher.
        check_broker: Raises where the broker is not that of the store.
        holder_of: Returns what holds up the record at a topic, partition and offset.
    """

    make: Callable[[], RequestPublisher[Event]]
    check_broker: Callable[[], Awaitable[None]]
    holder_of: Callable[[str, int, int], Awaitable[object | None]]
    _publisher: RequestPublisher[Event] | None = None
    _attempt: asyncio.Task[RequestPublisher[Event]] | None = None

    async def connected(self) -> RequestPublisher[Event]:
        """Return the connected publisher.

        Raises:
            BrokerError: No broker answers, or topics are missing.
            StoreNotReadyError: The broker is not that of the store.
        """
        if self._publisher is not None:
            return self._publisher
        if self._attempt is None:
            self._attempt = asyncio.create_task(self._connect(), name="rmos api publisher")
        # One client that goes away must not end the attempt of the others.
        return await asyncio.shield(self._attempt)

    async def read_events(self) -> None:
        """Let events be read from now on; raises as `connected`."""
        await (await self.connected()).read_events()

    async def stop(self) -> None:
        """Disconnect."""
        if self._attempt is not None:
            self._attempt.cancel()
            await asyncio.wait([self._attempt])
        if self._publisher is not None:
            await self._publisher.stop()

    async def _connect(self) -> RequestPublisher[Event]:
        try:
            await self.check_broker()
            publisher = self.make()
            try:
                await publisher.start()
            except BaseException:
                await publisher.stop()
                raise
            self._publisher = publisher
            return publisher
        finally:
            self._attempt = None


@dataclass(frozen=True, slots=True)
class Submission:
    """A valid request, as it is sent.

    Attributes:
        run_id: The run that it is about.
        created_at_utc: As its body has it; a retry must send the same.
        body: Exactly what is sent.
        advisory_id: Where it is an advisory.
    """

    run_id: str
    created_at_utc: str
    body: bytes
    advisory_id: str | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """What a client needs to know to send it again."""
        identity = {"run_id": self.run_id, "created_at_utc": self.created_at_utc}
        return identity | ({"advisory_id": self.advisory_id} if self.advisory_id else {})

    @property
    def retry(self) -> str:
        """What to send again; the run of an advisory is named by the path, not by the body."""
        if self.advisory_id is not None:
            return "the same body to the same path"
        return "the same body with this run_id and created_at_utc"

    @property
    def location(self) -> str:
        """Where the run is, or will be."""
        return f"{RUNS_PATH}/{self.run_id}"


def parse_body(body: bytes, code: str) -> Parsed:
    """Return the object that `body` holds, by the rules of the topic, and its canonical bytes.

    Raises:
        ApiError: It is no strict JSON; its code is `code`.
    """
    try:
        return parse_object(body)
    except InvalidJsonError as error:
        raise ApiError(422, code, error.sentence) from error


def rejected(rejection_code: str, message: str, code: str) -> ApiError:
    """Return the answer to a request that cannot be published."""
    if rejection_code == "TOO_LARGE":
        return ApiError(413, "TOO_LARGE", message)
    return ApiError(422, code, message)


def now() -> str:
    """Return the time as it is stored."""
    return format_timestamp(datetime.now(UTC))


async def publish(lazy: LazyPublisher[Event], submission: Submission, request: Request) -> Event:
    """Publish a request and return its event.

    Raises:
        ApiError: There is no event in time (202), it could not be published (503), or it is too
            large for the topic (413).
    """
    try:
        publisher = await lazy.connected()
        receipt = await publisher.send(submission.body, _headers(request))
        return await receipt.event()
    except ReceiptTimeoutError:
        record = await receipt.published()
        holder = await lazy.holder_of(record.topic, record.partition, record.offset)
        raise accepted(submission, holder) from None
    except BrokerError as error:
        message = (
            "The broker did not confirm the request, which it may have all the same: send "
            f"{submission.retry} again."
        )
        raise ApiError(503, "BROKER_UNAVAILABLE", message, submission.identity) from error
    except StoreNotReadyError as error:
        message = "The broker is not that of the store; nothing was published."
        raise ApiError(503, "STORE_UNAVAILABLE", message, submission.identity) from error
    except InputError as error:
        message = (
            "The request is too large for its topic, which must take 5 MiB: rmos topics check "
            "names what differs. Nothing was published."
        )
        raise ApiError(413, "TOO_LARGE", message) from error


def accepted(submission: Submission, holder: object | None = None) -> ApiError:
    """Return the answer that the broker has the request and that nothing more is known yet.

    Args:
        submission: The request.
        holder: What holds it up, where that is known.
    """
    held_up = "" if holder is None else f" It is held up by {holder}."
    message = (
        f"The broker has the request; it was not judged in time and will be.{held_up} To ask "
        f"again, send {submission.retry} again."
    )
    headers = {"Location": submission.location}
    return ApiError(202, "ACCEPTED", message, submission.identity, headers)


def refused(error: EventError | None, submission: Submission) -> ApiError:
    """Return the answer to a request whose event is `rejected`."""
    details = {"run_id": submission.run_id}
    if error is None:
        return ApiError(422, "INVALID_REQUEST", "The request was rejected.", details)
    return ApiError(_STATUSES.get(error.code, 422), error.code, error.message, details)


def _headers(request: Request) -> Headers:
    """Return what is carried on with the record; nothing of it reaches an artifact."""
    headers = [("x-request-id", request.state.request_id.encode())]
    # The span of this request, where it is traced; it is part of the client's trace.
    traced: dict[str, str] = {}
    _propagator.inject(traced)
    traceparent = traced.get("traceparent") or request.headers.get("traceparent", "")
    if 0 < len(traceparent) <= _TRACEPARENT_LIMIT_CHARACTERS:
        headers.append(("traceparent", traceparent.encode()))
        sent = ",".join(request.headers.getlist("tracestate"))
        tracestate = (traced.get("tracestate", "") if traced else sent).encode()
        if 0 < len(tracestate) <= _TRACESTATE_LIMIT_BYTES:
            headers.append(("tracestate", tracestate))
    return headers
