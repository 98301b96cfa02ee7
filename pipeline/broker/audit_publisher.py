"""Publishes a request for an audit: the same bytes for the same request, whoever sends it."""

from aiokafka.structs import RecordMetadata

from pipeline.broker.sending.requests import RequestSender
from pipeline.core.json.canonical import canonical_json
from pipeline.settings import Settings
from schemas.audit_request import AuditRequest


async def publish_audit(
    sender: RequestSender, settings: Settings, request: AuditRequest
) -> RecordMetadata:
    """Publish `request`; return where the broker keeps it, once it has acknowledged it.

    Raises:
        BrokerError: It did not acknowledge it; it may have it all the same.
    """
    key = request.audit_id.encode()
    value = canonical_json(request.model_dump(exclude_none=True))
    # The key decides the partition: of two requests for one audit, one waits for the other.
    return await (await sender.send(settings.topics.audit_requests, key, value, []))
