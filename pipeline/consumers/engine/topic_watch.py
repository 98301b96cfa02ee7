"""The requirements that a running consumer has of the broker, checked at intervals.

| what | how often | where it does not hold |
|---|---|---|
| the topic is that of the start | before each batch is given out | the worker stops |
| the group is not beyond the store | whenever partitions come, before any record of them is \
given out | the worker stops |
| the same, of every partition | every 10 s | not ready: another member may hold it |
| the number of partitions | every 10 s | not ready; those that were added are left alone |
| the settings of the topics | every minute | see `topic_promises` |

Where the broker does not answer, or what keeps the index does not, nothing is given out. Mostly the
consumer gets no answer of the broker either, which readiness shows. Where it does, the worker is
not ready after `LOOKS_WITHOUT_ANSWER` looks.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

import structlog
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from pipeline.broker.admin.groups import committed_offsets
from pipeline.broker.admin.topic_promises import Consequence, broken_promise
from pipeline.broker.admin.topics import (
    TopicDifference,
    TopicLook,
    look_at_topic,
    partition_offsets,
)
from pipeline.broker.aiokafka_fixes.clients import is_cancelled
from pipeline.broker.connection import refusal, start_admin
from pipeline.consumers.engine.readiness import Standing
from pipeline.consumers.engine.topic_identity import missing, refuse_other_topic
from pipeline.consumers.start.checks import Start, broken_promises, log_difference
from pipeline.consumers.start.partition_states import beyond_store, is_beyond_store, ways_back
from pipeline.core.record import Partition
from pipeline.errors import BrokerError, StoreAwayError, StoreNotReadyError
from pipeline.settings import Settings

LOOK_SECONDS = 10.0
SETTINGS_SECONDS = 60.0
LOOKS_WITHOUT_ANSWER = 3
"""So many looks in a row may stay without an answer without a word: a broker that restarts."""

_UNCONFIRMED = (
    "Nothing confirms that topic and group are still those of the store, and what is not "
    "confirmed is not consumed: {why}"
)

_log = structlog.get_logger(__name__)


class TopicWatch:
    """Looks for one consumer of one request topic."""

    def __init__(
        self, settings: Settings, *, topic: str, group: str, start: Start, standing: Standing
    ) -> None:
        """Prepare; the broker is asked at need.

        Args:
            settings: The broker.
            topic: The request topic.
            group: Who consumes it.
            start: What the start check found.
            standing: Gets the reasons why the consumer is not ready.
        """
        self._settings = settings
        self._topic = topic
        self._group = group
        self._start = start
        self._standing = standing
        self._admin: AIOKafkaAdminClient | None = None
        self._using = asyncio.Lock()
        # Beyond the store, and looked into: the ends of transactions alone.
        self._passed: dict[Partition, int] = {}
        self._settings_due = 0.0
        self._logged: set[str] = set()

    async def run(self) -> None:
        """Look until cancelled.

        Raises:
            StoreNotReadyError: The topic was made again, or is compacted.
        """
        unanswered = 0
        # aiokafka swallows a cancellation that comes while one of its clients stops.
        while not is_cancelled():
            try:
                await self._look()
                unanswered = 0
                self._standing.clear("unconfirmed")
            except (BrokerError, StoreAwayError) as error:
                unanswered += 1
                if unanswered >= LOOKS_WITHOUT_ANSWER:
                    self._standing.report("unconfirmed", _UNCONFIRMED.format(why=error))
            if not is_cancelled():
                await asyncio.sleep(LOOK_SECONDS)

    async def stop(self) -> None:
        """Disconnect."""
        if self._admin is not None:
            await self._admin.close()

    async def confirm_topic(self) -> None:
        """Make sure that what was polled is of the topic that the store keeps.

        Raises:
            StoreNotReadyError: The topic was deleted and made again.
            BrokerError: The broker does not answer now.
        """
        found = await self._look_at_topic()
        if found is None:
            raise BrokerError(missing(self._topic))
        refuse_other_topic(self._topic, self._start.topic_id, found.topic_id)

    async def confirm_group(self, partitions: Iterable[int]) -> None:
        """Make sure that the group is not beyond the store in `partitions`.

        Raises:
            StoreNotReadyError: It is: another program has committed in its name.
            BrokerError: The broker does not answer now.
            StoreAwayError: What keeps the index does not.
        """
        beyond = await self._beyond_store()
        mine = [beyond[number] for number in sorted(partitions) if number in beyond]
        if mine:
            raise StoreNotReadyError(self._why_beyond(mine))

    async def _look(self) -> None:
        found = await self._look_at_topic()
        if found is None:
            return
        self._look_at_partitions(found)
        await self._look_at_group()
        if time.monotonic() >= self._settings_due:
            await self._look_at_settings()
            self._settings_due = time.monotonic() + SETTINGS_SECONDS

    def _look_at_partitions(self, found: TopicLook) -> None:
        refuse_other_topic(self._topic, self._start.topic_id, found.topic_id)
        count, accepted = found.partitions, len(self._start.places)
        if count <= accepted:
            self._standing.clear("partitions")
            return
        more = TopicDifference(self._topic, "partitions", str(accepted), str(count))
        sentence = broken_promise(more, self._settings.topics).sentence
        self._standing.report("partitions", sentence)

    async def _look_at_group(self) -> None:
        beyond = await self._beyond_store()
        if beyond:
            self._standing.report("group", self._why_beyond(beyond.values()))
        else:
            self._standing.clear("group")

    async def _look_at_settings(self) -> None:
        reported = []
        for broken in await broken_promises(self._settings, set(self._start.needed)):
            if broken.consequence is Consequence.STOPS:
                raise StoreNotReadyError(broken.sentence)
            if broken.difference.setting == "partitions":
                continue  # Looked at more often.
            if broken.consequence is not Consequence.LOGGED:
                reported.append(broken.sentence)
            elif broken.sentence not in self._logged:
                self._logged.add(broken.sentence)
                log_difference(broken)
        if reported:
            self._standing.report("settings", " ".join(reported))
        else:
            self._standing.clear("settings")

    async def _beyond_store(self) -> dict[int, str]:
        """Return the partitions where the group is beyond the store, and how far."""
        if self._start.kept is None:
            return {}
        # In this order: a worker that goes on while we look only makes the later ones larger.
        committed = await committed_offsets(self._settings, self._group, [self._topic])
        kept = await asyncio.to_thread(self._start.kept)
        ahead = {
            place: offset
            for place, offset in committed.items()
            if place[1] in self._start.places and offset > self._reached(kept, place)
        }
        if not ahead:
            return {}
        logs = await partition_offsets(self._settings, [self._topic])
        found = {}
        for place, offset in ahead.items():
            reached = self._reached(kept, place)
            if await is_beyond_store(
                self._settings, place, committed=offset, kept=reached, log=logs[place]
            ):
                stored = kept.get(place, 0)
                found[place[1]] = beyond_store(place, committed=offset, stored=stored)
            elif offset <= logs[place].end:
                self._passed[place] = offset
        return found

    def _reached(self, kept: Mapping[Partition, int], place: Partition) -> int:
        return max(kept.get(place, 0), self._passed.get(place, 0))

    def _why_beyond(self, beyond: Iterable[str]) -> str:
        return f"{'; '.join(beyond)}: {ways_back(self._settings, self._group)}."

    async def _look_at_topic(self) -> TopicLook | None:
        """Return the state of the topic at the broker; None, with a reason, where it is missing."""
        async with self._asking() as admin:
            found = await look_at_topic(admin, self._topic)
        if found is None:
            self._standing.report("topic", missing(self._topic))
        else:
            self._standing.clear("topic")
        return found

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[AIOKafkaAdminClient]:
        """Give the one admin client of this watch; another after a fault.

        Raises:
            BrokerError: The broker does not answer; readiness finds out why.
        """
        # One at a time: a client that one closes must not connect again for the other.
        async with self._using:
            try:
                if self._admin is None:
                    self._admin = await start_admin(self._settings)
                yield self._admin
            except BaseException as error:
                admin, self._admin = self._admin, None
                if admin is not None:
                    await admin.close()
                if isinstance(error, KafkaError):
                    raise refusal(self._settings, error) from error
                if isinstance(error, OSError):
                    raise BrokerError(str(error)) from error
                raise
