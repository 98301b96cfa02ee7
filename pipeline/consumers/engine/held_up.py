"""Records that wait behind a transaction that somebody has left open: whose it is, said once."""

import time
from collections.abc import Mapping

from aiokafka import TopicPartition

from pipeline.broker.admin.open_transactions import OpenTransaction, open_transactions
from pipeline.consumers.engine.standing import Standing
from pipeline.errors import BrokerError
from pipeline.settings import Settings

PATIENCE_SECONDS = 10.0
"""A transaction is an everyday thing, and most last some milliseconds."""

ASK_SECONDS = 10.0
"""How often the broker is asked whose transactions they are."""


class HeldUp:
    """Lets a consumer be not ready while open transactions hold it up."""

    def __init__(self, settings: Settings, standing: Standing) -> None:
        self._settings = settings
        self._standing = standing
        self._since: dict[TopicPartition, float] = {}
        self._asked = float("-inf")

    async def note(self, waiting: Mapping[TopicPartition, int]) -> None:
        """Take note of how many records wait in which partitions; all others go on."""
        now = time.monotonic()
        self._since = {place: self._since.get(place, now) for place in waiting}
        late = {
            place: waiting[place]
            for place, since in self._since.items()
            if now - since >= PATIENCE_SECONDS
        }
        if not late:
            self._standing.clear("transaction")
            self._asked = float("-inf")
        elif now - self._asked >= ASK_SECONDS:
            self._asked = now
            self._standing.report("transaction", await self._sentence(late))

    async def _sentence(self, late: Mapping[TopicPartition, int]) -> str:
        place = min(late)
        more = f", and {len(late) - 1} partitions more" if len(late) > 1 else ""
        return (
            f"Records of {place.topic}, partition {place.partition}, wait{more}: held up by "
            f"{await self._holder(place)}. Let its program end it, or start that program again."
        )

    async def _holder(self, place: TopicPartition) -> OpenTransaction | str:
        try:
            found = await open_transactions(self._settings, [place])
        except BrokerError as error:
            return f"an open transaction, of which the broker does not say more ({error})"
        return found.get((place.topic, place.partition), "an open transaction that is ending")
