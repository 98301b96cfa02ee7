"""The publishing clients: send requests and wait for what became of each.

This is what a CAM system or an explainer engine imports; the base install has all that it needs.

    async with RunPublisher() as publisher:
        event = await publisher.publish_and_wait(request)
        if event.may_cut:
            ...
"""

from pipeline.broker.receipts import Published, Receipt
from pipeline.broker.request_encoding import Request
from pipeline.broker.request_publisher import Contract, RequestPublisher
from pipeline.broker.sending.requests import Headers
from pipeline.topics import TopicNames
from schemas.advisory_event import AdvisoryEvent
from schemas.run_event import RunEvent

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

    def _contract_of(self, topics: TopicNames) -> Contract[RunEvent]:
        return Contract(topics.run_requests, topics.run_events, RunEvent)


class AdvisoryPublisher(RequestPublisher[AdvisoryEvent]):
    """Publishes advisory requests.

    One whose run is not there yet waits. Its event says so where the time is over by then; the
    advisory keeps its id, and is linked once the run comes.
    """

    def _contract_of(self, topics: TopicNames) -> Contract[AdvisoryEvent]:
        return Contract(topics.advisory_requests, topics.advisory_events, AdvisoryEvent)
