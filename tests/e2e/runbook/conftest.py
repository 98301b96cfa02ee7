"""A shop for each drill: topics, a store, its key, and services that are not started yet."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pipeline.broker.local.broker import LocalBroker
from pipeline.broker.local.loopback import free_port
from pipeline.settings import Settings
from tests.e2e.kafka_reading import EVERY_TOPIC, RUN_TOPICS, new_settings, topics_and_store
from tests.e2e.runbook.drill import Drill
from tests.e2e.runbook.units import units_of
from tests.e2e.worker_processes import worker_environment


def drill_settings(broker: LocalBroker, folder: Path) -> Settings:
    return new_settings(
        broker,
        folder / "srv" / "rmos",
        session_timeout_ms=6000,
        ledger_key_file=folder / "etc" / "rmos" / "ledger.pem",
    )


def environment_of(settings: Settings) -> dict[str, str]:
    return worker_environment(
        settings,
        RMOS_LEDGER_KEY_FILE=str(settings.ledger_key_file),
        RMOS_LOG_FORMAT="json",
        XDG_CONFIG_HOME=str(settings.data_dir.parent / "config"),
    )


@asynccontextmanager
async def drilled(
    broker: LocalBroker, folder: Path, needed: Collection[str] | None = EVERY_TOPIC
) -> AsyncIterator[Drill]:
    """Give a shop on `broker` with topics `needed`; `folder` is what / is in the document."""
    settings = drill_settings(broker, folder)
    settings.data_dir.parent.mkdir()
    port = free_port()
    words = {
        "127.0.0.1:9101": f"127.0.0.1:{port}",
        "/srv/": f"{folder}/srv/",
        "/etc/rmos/": f"{folder}/etc/rmos/",
        "127.0.0.1:9092": broker.bootstrap_servers,
    }
    async with topics_and_store(broker, settings, needed):
        file = folder / "etc" / "rmos" / "environment"
        environment = environment_of(settings)
        with units_of(folder / "units", environment, ["rmos-persist@1"], file) as units:
            units.own["rmos-persist@1"] = {"RMOS_METRICS_PORT": str(port)}
            yield Drill(settings, folder, units, words)


@pytest.fixture
async def drill(
    broker: LocalBroker, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Drill]:
    every = request.node.get_closest_marker("every_topic") is not None
    async with drilled(broker, tmp_path, EVERY_TOPIC if every else RUN_TOPICS) as made:
        yield made
