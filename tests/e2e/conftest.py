"""One real broker for the whole session, and settings with topics of its own for each test."""

import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from pipeline.broker.local.broker import LocalBroker
from pipeline.settings import Settings, read_settings
from tests.e2e.java_cache import java_cache, use_in_environment
from tests.e2e.kafka_reading import (
    EVERY_TOPIC,
    NO_FLUSHES,
    QUIET,
    RUN_TOPICS,
    SHORT_WAITS,
    topics_of,
)
from tests.e2e.prepared_store import prepare_store
from tests.e2e.worker_processes import WorkerPool, worker_pool


@pytest.fixture(scope="session", autouse=True)
def quick_java(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let every broker start with a cache of its classes."""
    with pytest.MonkeyPatch.context() as patch:
        use_in_environment(java_cache(tmp_path_factory.mktemp("java")), patch)
        yield


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    """Give the session's broker; where it cannot start, its error fails the test."""
    folder = tmp_path_factory.mktemp("kafka")
    with LocalBroker(folder, port=0, properties=SHORT_WAITS | QUIET | NO_FLUSHES) as running:
        yield running
        assert running.exit_reason() is None, running.exit_reason()


@pytest.fixture(scope="session")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    broker = LocalBroker(tmp_path_factory.mktemp("mortal"), port=0, properties=QUIET)
    yield broker
    broker.stop()


@pytest.fixture
def mortal_broker(mortal: LocalBroker) -> LocalBroker:
    """Give a broker that runs, and that a test may stop, kill, halt or damage."""
    mortal.start()
    return mortal


@pytest.fixture
def settings_without_topics(broker: LocalBroker, tmp_path: Path) -> Settings:
    """Give settings with a prefix that nobody else uses."""
    return read_settings(
        prefix=f"t{uuid.uuid4().hex[:12]}",
        bootstrap_servers=broker.bootstrap_servers,
        data_dir=tmp_path / "store",
    )


@pytest.fixture
async def settings(
    settings_without_topics: Settings, request: pytest.FixtureRequest
) -> AsyncIterator[Settings]:
    """Give settings whose topics are there; they are deleted afterwards.

    They are those of runs, unless the test or its file is marked with `every_topic`.
    """
    every = request.node.get_closest_marker("every_topic") is not None
    async with topics_of(settings_without_topics, EVERY_TOPIC if every else RUN_TOPICS):
        yield settings_without_topics


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
