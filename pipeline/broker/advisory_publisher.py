"""The publishing client of explainer engines: sends advisories, waits for what became of each.

    async with AdvisoryPublisher() as publisher:
        event = await publisher.publish_and_wait(advisory)

An advisory whose run is not there yet has the event `waiting` first; that is the one that is
waited for.
"""

from pipeline.broker.request_publisher import RequestPublisher
from schemas.advisory_event import AdvisoryEvent


class AdvisoryPublisher(RequestPublisher[AdvisoryEvent]):
    """Publishes advisory requests, as `RunPublisher` does run requests."""

    @property
    def _request_topic(self) -> str:
        return self._settings.topics.advisory_requests

    @property
    def _event_topic(self) -> str:
        return self._settings.topics.advisory_events

    @property
    def _event_shape(self) -> type[AdvisoryEvent]:
        return AdvisoryEvent
