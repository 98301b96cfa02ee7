"""What the broker refuses a consumer that asks again and again: said while it lasts."""

import asyncio

from aiokafka.errors import KafkaError

from pipeline.broker.connection import broker_error
from pipeline.consumers.engine.liveness import Pulse
from pipeline.consumers.engine.standing import Standing
from pipeline.errors import BrokerError
from pipeline.settings import Settings

REFUSAL_PAUSE_SECONDS = 5.0
REFUSAL_HOLDS_SECONDS = 30.0
"""Time without a refusal after which an empty poll means that the broker refuses no longer."""


class Refusals:
    """Lets a consumer be not ready while the broker refuses its polls."""

    def __init__(self, settings: Settings, standing: Standing) -> None:
        self._settings = settings
        self._standing = standing
        self._last = Pulse()

    async def note(self, error: KafkaError) -> BrokerError:
        """Say what a poll was refused for; return it as one sentence."""
        self._last.beat()
        refusal = await broker_error(self._settings, error)
        self._standing.report("broker", str(refusal))
        return refusal

    def note_poll(self, *, brought: bool) -> None:
        """Take note of a poll that was not refused, and whether it brought records."""
        # An empty poll may have ended before the broker refused again.
        if brought or self._last.age_seconds > REFUSAL_HOLDS_SECONDS:
            self._standing.clear("broker")

    async def rest(self) -> None:
        """Wait before the next poll."""
        await asyncio.sleep(REFUSAL_PAUSE_SECONDS)
