"""Pairs events with the offsets that wait for them, in whatever order both become known."""

import asyncio
import json
from dataclasses import dataclass
from weakref import WeakValueDictionary

EARLY_EVENTS_LIMIT = 100_000
"""Most events that are kept for requests whose offset is not known yet; about 100 MB."""

INTERIM_OUTCOME = "waiting"
"""An event that says so is not the last word about its request."""


class EventFuture(asyncio.Future[bytes]):
    """The last event about one request.

    Attributes:
        interim: The word before the last, where there is one.
    """

    interim: bytes | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where the broker keeps one record."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        """Return the form in which messages tell of it."""
        return f"{self.topic}/{self.partition}/{self.offset}"


@dataclass(frozen=True, slots=True)
class EventGlance:
    """What is looked at of every event; a whole one is validated for its one request alone.

    Attributes:
        place: The record that it is about.
        is_interim: Whether another event about the same record is to come.
    """

    place: Place
    is_interim: bool


@dataclass(slots=True)
class _EarlyEvent:
    """An event that was read before its request's offset was known.

    Attributes:
        ticket: The youngest when it was read.
    """

    ticket: int
    value: bytes
    is_interim: bool


class EventMatcher:
    """Gives each event to the request that it is about.

    An event may be read before we hear which offset its request got: while any request that
    was under way at that time still is, the event is kept. What nobody can want any more is
    dropped, so a publisher that runs for months keeps nothing.
    """

    def __init__(self) -> None:
        # Weak: whoever gave up waiting takes the entry along, without having to say so.
        self._waiting: WeakValueDictionary[Place, EventFuture] = WeakValueDictionary()
        # Tickets of requests under way, oldest first.
        self._under_way: dict[int, None] = {}
        self._last_ticket = 0
        # In the order of their tickets, which never decrease.
        self._early: dict[Place, _EarlyEvent] = {}
        self._failure: Exception | None = None

    @property
    def early_count(self) -> int:
        """How many events are kept for requests whose offset is not known yet."""
        return len(self._early)

    def announce(self) -> int:
        """Say, before a request is sent, that its event is wanted; return its ticket."""
        self._last_ticket += 1
        self._under_way[self._last_ticket] = None
        return self._last_ticket

    def expect(self, ticket: int, place: Place, event: EventFuture) -> None:
        """Let `event` have the value of the event about `place`, now or when it is read."""
        early = self._early.pop(place, None)
        if early is not None and not early.is_interim:
            event.set_result(early.value)
        else:
            if early is not None:
                event.interim = early.value
            self._wait(place, event)
        self.withdraw(ticket)

    def _wait(self, place: Place, event: EventFuture) -> None:
        if self._failure is not None:
            _fail(event, self._failure)
        else:
            self._waiting[place] = event

    def withdraw(self, ticket: int) -> None:
        """Say that the request with this ticket is under way no longer."""
        self._under_way.pop(ticket, None)
        oldest = next(iter(self._under_way), self._last_ticket + 1)
        while self._early:
            place, early = next(iter(self._early.items()))
            if early.ticket >= oldest:
                break
            del self._early[place]

    def take(self, value: bytes) -> None:
        """Give the event `value` to its request; drop it where there can be none."""
        if not self._waiting and not self._under_way:
            return
        glance = glance_at_event(value)
        if glance is None:
            return
        event = self._waiting.get(glance.place)
        if event is None:
            self._keep(glance, value)
        elif glance.is_interim:
            event.interim = value
        else:
            del self._waiting[glance.place]
            if not event.done():
                event.set_result(value)

    def fail(self, error: Exception) -> None:
        """Let all that wait, and all to come, fail with `error`: nothing will be read any more."""
        self._failure = error
        for event in list(self._waiting.values()):
            _fail(event, error)
        self._waiting.clear()

    def _keep(self, glance: "EventGlance", value: bytes) -> None:
        if not self._under_way:
            return
        known = self._early.get(glance.place)
        if known is None:
            known = _EarlyEvent(self._last_ticket, value, glance.is_interim)
            self._early[glance.place] = known
        elif known.is_interim and not glance.is_interim:
            # Under its first ticket: its request was under way by then, and order stays.
            known.value, known.is_interim = value, False
        if len(self._early) > EARLY_EVENTS_LIMIT:
            # Whose event this was waits until its time is up, and is told how to retry.
            del self._early[next(iter(self._early))]


def _fail(event: EventFuture, error: Exception) -> None:
    if not event.done():
        event.set_exception(error)
        # Read once, so that nobody is told of an exception that nobody waited for.
        event.exception()


def glance_at_event(value: bytes) -> EventGlance | None:
    """Return what the event `value` is about; None where it is no such event."""
    try:
        event = json.loads(value)
        source = event["source"]
        place = Place(source["topic"], source["partition"], source["offset"])
        hash(place)
        return EventGlance(place, event.get("outcome") == INTERIM_OUTCOME)
    # Whoever may write the topic decides what is in it; RecursionError is a deep nesting.
    except (ValueError, TypeError, LookupError, RecursionError, AttributeError):
        return None
