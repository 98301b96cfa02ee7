"""The publishing client: sends run requests and waits for what became of each.

This is what a CAM system imports; the base install has all that it needs.

    async with RunPublisher() as publisher:
        event = await publisher.publish_and_wait(request)
        if event.may_cut:
            ...
"""

from typing import TypeAlias

from pipeline.broker.receipts import EventReceipt, Published
from pipeline.broker.request_encoding import Request
from pipeline.broker.request_publisher import RequestPublisher
from pipeline.broker.request_sender import Headers
from schemas.run_event import RunEvent

__all__ = ["Headers", "Published", "Receipt", "Request", "RunPublisher"]

Receipt: TypeAlias = EventReceipt[RunEvent]


class RunPublisher(RequestPublisher[RunEvent]):
    """Publishes run requests; look at the `may_cut` of their events."""

    @property
    def _request_topic(self) -> str:
        return self._settings.topics.run_requests

    @property
    def _event_topic(self) -> str:
        return self._settings.topics.run_events

    @property
    def _event_shape(self) -> type[RunEvent]:
        return RunEvent
