"""A client that joins a consumer group and commits by itself, beside FastStream's subscribers."""

from typing import Any

from aiokafka import AIOKafkaConsumer

from pipeline.broker.connection import client_options
from pipeline.settings import Settings


def group_member(settings: Settings, group: str) -> Any:  # noqa: ANN401 - aiokafka has no types
    """Return a consumer that will be a member of `group`; it subscribes and starts later.

    A group without an offset begins at the log's first record.
    """
    return AIOKafkaConsumer(
        **client_options(settings),
        group_id=group,
        group_instance_id=settings.instance,
        client_id=settings.instance or f"{group}-worker",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        session_timeout_ms=settings.session_timeout_ms,
        heartbeat_interval_ms=settings.heartbeat_interval_ms,
        max_poll_interval_ms=settings.max_poll_interval_ms,
        rebalance_timeout_ms=settings.max_poll_interval_ms,
    )
