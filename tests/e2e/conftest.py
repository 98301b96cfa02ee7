"""One real broker for the whole session, and settings with topics of its own for each test."""

import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from pipeline.broker.admin.topics import apply_topics
from pipeline.broker.connection import admin_client
from pipeline.broker.local.broker import LocalBroker
from pipeline.settings import Settings, read_settings
from pipeline.topics import topic_table
from tests.e2e.kafka_reading import SHORT_SESSIONS
from tests.e2e.prepared_store import prepare_store
from tests.e2e.worker_processes import WorkerPool, worker_pool


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    """Give the session's broker; where it cannot start, its error fails the test."""
    folder = tmp_path_factory.mktemp("kafka")
    with LocalBroker(folder, port=0, properties=SHORT_SESSIONS) as running:
        yield running
        assert running.exit_reason() is None, running.exit_reason()


@pytest.fixture
def settings_without_topics(broker: LocalBroker, tmp_path: Path) -> Settings:
    """Give settings with a prefix that nobody else uses."""
    return read_settings(
        prefix=f"t{uuid.uuid4().hex[:12]}",
        bootstrap_servers=broker.bootstrap_servers,
        data_dir=tmp_path / "store",
    )


@pytest.fixture
async def settings(settings_without_topics: Settings) -> AsyncIterator[Settings]:
    """Give settings whose topics are there; they are deleted afterwards."""
    assert await apply_topics(settings_without_topics) == []
    yield settings_without_topics
    # The 94 partitions of a test would otherwise fill the broker's heap in a long session.
    names = [topic.name for topic in topic_table(settings_without_topics.prefix)]
    async with admin_client(settings_without_topics) as admin:
        await admin.delete_topics(names)


@pytest.fixture
def store_settings(settings: Settings, broker: LocalBroker) -> Settings:
    """Give settings whose topics and store are there."""
    prepare_store(settings, broker.cluster_id)
    return settings


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[WorkerPool]:
    """Give a place to start worker processes from; none outlives the test."""
    with worker_pool(tmp_path) as pool:
        yield pool
