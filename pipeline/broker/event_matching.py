"""Pairs events with the offsets that wait for them, in whatever order both become known."""

import asyncio
import json
from dataclasses import dataclass
from weakref import WeakValueDictionary

EARLY_EVENTS_LIMIT = 100_000
"""Most events that are kept for requests whose offset is not known yet; about 100 MB."""

EventFuture = asyncio.Future[bytes]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the broker keeps one record."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        """Return the form in which messages tell of it."""
        return f"{self.topic}/{self.partition}/{self.offset}"


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
        # Events with the youngest ticket when they were read, which never decreases.
        self._early: dict[Place, tuple[int, bytes]] = {}
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
        if early is not None:
            event.set_result(early[1])
        elif self._failure is not None:
            _fail(event, self._failure)
        else:
            self._waiting[place] = event
        self.withdraw(ticket)

    def withdraw(self, ticket: int) -> None:
        """Say that the request with this ticket is under way no longer."""
        self._under_way.pop(ticket, None)
        oldest = next(iter(self._under_way), self._last_ticket + 1)
        while self._early:
            place, (youngest_then, _value) = next(iter(self._early.items()))
            if youngest_then >= oldest:
                break
            del self._early[place]

    def take(self, value: bytes) -> None:
        """Give the event `value` to its request; drop it where there can be none."""
        if not self._waiting and not self._under_way:
            return
        place = event_place(value)
        if place is None:
            return
        event = self._waiting.pop(place, None)
        if event is None:
            self._keep(place, value)
        elif not event.done():
            event.set_result(value)

    def fail(self, error: Exception) -> None:
        """Let all that wait, and all to come, fail with `error`: nothing will be read any more."""
        self._failure = error
        for event in list(self._waiting.values()):
            _fail(event, error)
        self._waiting.clear()

    def _keep(self, place: Place, value: bytes) -> None:
        if not self._under_way:
            return
        self._early.setdefault(place, (self._last_ticket, value))
        if len(self._early) > EARLY_EVENTS_LIMIT:
            # Whose event this was waits until its time is up, and is told how to retry.
            del self._early[next(iter(self._early))]


def _fail(event: EventFuture, error: Exception) -> None:
    if not event.done():
        event.set_exception(error)
        # Read once, so that nobody is told of an exception that nobody waited for.
        event.exception()


def event_place(value: bytes) -> Place | None:
    """Return the record that the event `value` is about; None where it is no such event.

    Only this is looked at: a whole event is validated for the one request that it is about.
    """
    try:
        source = json.loads(value)["source"]
        place = Place(source["topic"], source["partition"], source["offset"])
        hash(place)
    # Whoever may write the topic decides what is in it; RecursionError is a deep nesting.
    except (ValueError, TypeError, LookupError, RecursionError):
        return None
    return place
