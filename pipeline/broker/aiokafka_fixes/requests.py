"""Kafka's requests that aiokafka 0.14 does not have, as the protocol defines them.

OffsetDelete (KIP-496), topic ids in metadata (KIP-516), rights of a user (KIP-430), and
transactions (KIP-664). All but the first and the groups are flexible: each struct ends in tags;
there are none.
"""

import uuid
from collections.abc import Sequence
from io import BytesIO
from typing import Any

from aiokafka.protocol.admin import DescribeGroupsResponse_v3
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.metadata import MetadataRequest_v5
from aiokafka.protocol.types import (
    AbstractType,
    Array,
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
    String,
    TaggedFields,
)

NO_TOPIC_ID = uuid.UUID(int=0)
_STRING = String("utf-8")
_TEXT = CompactString("utf-8")
_NO_TAGS: dict[int, bytes] = {}


def _structs(**fields: Any) -> CompactArray:  # noqa: ANN401 - aiokafka's types of fields
    return CompactArray(*fields.items(), ("tags", TaggedFields))


def _flexible(**fields: Any) -> Schema:  # noqa: ANN401
    return Schema(*fields.items(), ("tags", TaggedFields))


def _kind(
    key: int, version: int, asked: Schema, answered: Schema, *, flexible: bool = True
) -> type[RequestStruct]:
    """Return one version of a request, with the form of its answer."""
    identity = {"API_KEY": key, "API_VERSION": version}
    answer = type("_Response", (Response,), identity | {"SCHEMA": answered})
    form = {"SCHEMA": asked, "RESPONSE_TYPE": answer, "FLEXIBLE_VERSION": flexible}
    return type("_Request", (RequestStruct,), identity | form)


DESCRIBE_PRODUCERS = _kind(
    61,
    0,
    _flexible(topics=_structs(name=_TEXT, partitions=CompactArray(Int32))),
    _flexible(
        throttle_time_ms=Int32,
        topics=_structs(
            name=_TEXT,
            partitions=_structs(
                partition=Int32,
                error_code=Int16,
                error_message=_TEXT,
                active_producers=_structs(
                    producer_id=Int64,
                    producer_epoch=Int32,
                    last_sequence=Int32,
                    last_timestamp=Int64,
                    coordinator_epoch=Int32,
                    current_txn_start_offset=Int64,
                ),
            ),
        ),
    ),
)
LIST_TRANSACTIONS = _kind(
    66,
    0,
    _flexible(state_filters=CompactArray(_TEXT), producer_id_filters=CompactArray(Int64)),
    _flexible(
        throttle_time_ms=Int32,
        error_code=Int16,
        unknown_state_filters=CompactArray(_TEXT),
        transaction_states=_structs(
            transactional_id=_TEXT, producer_id=Int64, transaction_state=_TEXT
        ),
    ),
)
DESCRIBE_TRANSACTIONS = _kind(
    65,
    0,
    _flexible(transactional_ids=CompactArray(_TEXT)),
    _flexible(
        throttle_time_ms=Int32,
        transaction_states=_structs(
            error_code=Int16,
            transactional_id=_TEXT,
            transaction_state=_TEXT,
            transaction_timeout_ms=Int32,
            transaction_start_time_ms=Int64,
            producer_id=Int64,
            producer_epoch=Int16,
            topics=_structs(topic=_TEXT, partitions=CompactArray(Int32)),
        ),
    ),
)
OFFSET_DELETE = _kind(
    47,
    0,
    Schema(("group", _STRING), ("topics", Array(("topic", _STRING), ("partitions", Array(Int32))))),
    Schema(
        ("error_code", Int16),
        ("throttle_time_ms", Int32),
        (
            "topics",
            Array(
                ("topic", _STRING),
                ("partitions", Array(("partition", Int32), ("error_code", Int16))),
            ),
        ),
    ),
    flexible=False,
)


class _Uuid(AbstractType[uuid.UUID]):  # type: ignore[misc]
    """16 bytes; aiokafka has no such type."""

    @classmethod
    def encode(cls, value: uuid.UUID) -> bytes:
        return value.bytes

    @classmethod
    def decode(cls, data: BytesIO) -> uuid.UUID:
        return uuid.UUID(bytes=data.read(16))


METADATA_WITH_IDS = _kind(
    3,
    10,
    _flexible(
        topics=_structs(topic_id=_Uuid, topic=_TEXT),
        allow_auto_topic_creation=Boolean,
        include_cluster_authorized_operations=Boolean,
        include_topic_authorized_operations=Boolean,
    ),
    _flexible(
        throttle_time_ms=Int32,
        brokers=_structs(node_id=Int32, host=_TEXT, port=Int32, rack=_TEXT),
        cluster_id=_TEXT,
        controller_id=Int32,
        topics=_structs(
            error_code=Int16,
            topic=_TEXT,
            topic_id=_Uuid,
            is_internal=Boolean,
            partitions=_structs(
                error_code=Int16,
                partition=Int32,
                leader=Int32,
                leader_epoch=Int32,
                replicas=CompactArray(Int32),
                isr=CompactArray(Int32),
                offline_replicas=CompactArray(Int32),
            ),
            authorized_operations=Int32,
        ),
        cluster_authorized_operations=Int32,
    ),
)


# aiokafka reads the answer in the form of version 2, without its last field.
GROUPS_WITH_RIGHTS = _kind(
    15,
    3,
    Schema(("groups", Array(_STRING)), ("include_authorized_operations", Boolean)),
    DescribeGroupsResponse_v3.SCHEMA,
    flexible=False,
)


class _Question(Request[Any]):  # type: ignore[misc]
    """A request with its values for each of the versions in which it can be sent, older first."""

    API_KEY = -1

    def __init__(self, *versions: tuple[type[RequestStruct], tuple[Any, ...]]) -> None:
        self._values = dict(versions)
        self._CLASSES = tuple(self._values)
        self.API_KEY = self._CLASSES[0].API_KEY

    def build(self, request_struct_class: type[RequestStruct]) -> RequestStruct:
        return request_struct_class(*self._values[request_struct_class])


def describe_producers(topics: Sequence[tuple[str, Sequence[int]]]) -> Request[Any]:
    """Ask the leader of partitions which producers write there."""
    listed = [(name, list(partitions), _NO_TAGS) for name, partitions in topics]
    return _Question((DESCRIBE_PRODUCERS, (listed, _NO_TAGS)))


def list_transactions(producer_ids: Sequence[int]) -> Request[Any]:
    """Ask a coordinator for the transactions of some producers."""
    return _Question((LIST_TRANSACTIONS, ([], list(producer_ids), _NO_TAGS)))


def describe_transactions(transactional_ids: Sequence[str]) -> Request[Any]:
    """Ask a coordinator about its transactions."""
    return _Question((DESCRIBE_TRANSACTIONS, (list(transactional_ids), _NO_TAGS)))


def delete_offsets(group: str, topics: list[tuple[str, list[int]]]) -> Request[Any]:
    """Delete what a group committed of some partitions (KIP-496)."""
    return _Question((OFFSET_DELETE, (group, topics)))


def topic_with_id(topic: str) -> Request[Any]:
    """Ask for one topic and its id (KIP-516), and make none.

    A broker of before Kafka 2.8 answers in a version without ids.
    """
    named = [(NO_TOPIC_ID, topic, _NO_TAGS)]
    return _Question(
        (MetadataRequest_v5, ([topic], False)),
        (METADATA_WITH_IDS, (named, False, False, False, _NO_TAGS)),
    )


def topics_with_rights(topics: Sequence[str]) -> Request[Any]:
    """Ask for topics and what this user may do with each, and make none."""
    named = [(NO_TOPIC_ID, topic, _NO_TAGS) for topic in topics]
    return _Question((METADATA_WITH_IDS, (named, False, False, True, _NO_TAGS)))


def group_with_rights(group: str) -> Request[Any]:
    """Ask the coordinator of a group what this user may do with it."""
    return _Question((GROUPS_WITH_RIGHTS, ([group], True)))
