"""What others do to a topic under a worker: delete it, make it again, add to it, set it."""

from collections.abc import Mapping

from aiokafka.admin import NewPartitions
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from pipeline.broker.admin.topics import apply_topics, look_at_topic
from pipeline.broker.connection import admin_client
from pipeline.settings import Settings
from tests.e2e.kafka_reading import wait_until


async def delete_topic(settings: Settings, topic: str) -> None:
    async with admin_client(settings) as admin:
        await admin.delete_topics([topic])

        async def is_gone() -> bool:
            return await look_at_topic(admin, topic) is None

        await wait_until(is_gone, "the topic is gone")


async def make_again(settings: Settings, topic: str) -> None:
    await delete_topic(settings, topic)
    assert await apply_topics(settings) == []


async def add_partitions(settings: Settings, topic: str, count: int) -> None:
    async with admin_client(settings) as admin:
        await admin.create_partitions({topic: NewPartitions(count)})

        async def are_there() -> bool:
            found = await look_at_topic(admin, topic)
            return found is not None and found.partitions == count

        await wait_until(are_there, "the partitions are there")


async def set_topic(settings: Settings, topic: str, configs: Mapping[str, str]) -> None:
    """Give a topic exactly these settings; all others are the broker's own."""
    async with admin_client(settings) as admin:
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, dict(configs))])
