"""What tells one topic from another of its name: the id that Kafka gives each when it is made.

aiokafka asks for metadata in a version that has no ids, so the request is sent as the protocol has
it (version 10, KIP-516). A broker of before Kafka 2.8 gives no ids.
"""

import uuid
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import NodeNotReadyError, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.metadata import MetadataRequest_v5
from aiokafka.protocol.types import (
    AbstractType,
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

_UNKNOWN_TOPIC = 3
_NO_ID = uuid.UUID(int=0)


@dataclass(frozen=True, slots=True)
class TopicLook:
    """One topic as a broker has it.

    Attributes:
        topic_id: Of this topic and no other, also of no later one of its name; None where the
            broker gives none.
        partitions: How many it has.
    """

    topic_id: str | None
    partitions: int


async def look_at_topic(admin: AIOKafkaAdminClient, topic: str) -> TopicLook | None:
    """Return what the broker says of `topic`; None where there is no such topic.

    Raises:
        KafkaError: The broker does not answer, or does not show it.
    """
    node = admin._client.get_random_node()
    if node is None:
        raise NodeNotReadyError
    response = await admin._client.send(node, _MetadataRequest(topic))
    (found,) = response.to_object()["topics"]
    if found["error_code"] == _UNKNOWN_TOPIC:
        return None
    if found["error_code"] != 0:
        raise for_code(found["error_code"])(f"topic {topic}")
    topic_id = found.get("topic_id", _NO_ID)
    return TopicLook(None if topic_id == _NO_ID else str(topic_id), len(found["partitions"]))


class _Uuid(AbstractType[uuid.UUID]):  # type: ignore[misc]
    """16 bytes; aiokafka has no such type."""

    @classmethod
    def encode(cls, value: uuid.UUID) -> bytes:
        return value.bytes

    @classmethod
    def decode(cls, data: BytesIO) -> uuid.UUID:
        return uuid.UUID(bytes=data.read(16))


class _MetadataResponseV10(Response):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("topic", CompactString("utf-8")),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_authorized_operations", Int32),
        ("tags", TaggedFields),
    )


class _MetadataV10(RequestStruct):  # type: ignore[misc]
    FLEXIBLE_VERSION = True
    API_KEY = 3
    API_VERSION = 10
    RESPONSE_TYPE = _MetadataResponseV10
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(
                ("topic_id", _Uuid), ("topic", CompactString("utf-8")), ("tags", TaggedFields)
            ),
        ),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _MetadataRequest(Request[MetadataRequest_v5 | _MetadataV10]):  # type: ignore[misc]
    """Asks for one topic, and makes none."""

    API_KEY = 3

    def __init__(self, topic: str) -> None:
        self._topic = topic

    def build(self, request_struct_class: type[Any]) -> Any:  # noqa: ANN401
        if request_struct_class is _MetadataV10:
            no_tags: dict[int, bytes] = {}
            named = [(_NO_ID, self._topic, no_tags)]
            return _MetadataV10(named, False, False, False, no_tags)
        return request_struct_class([self._topic], False)
