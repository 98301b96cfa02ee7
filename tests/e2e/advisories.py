"""Advisories to publish, and what became of them, read without the program under test."""

import json
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiokafka import ConsumerRecord

from pipeline.broker.local.broker import LocalBroker
from pipeline.settings import Settings
from schemas.advisory_event import AdvisoryEvent
from schemas.dead_letter import DeadLetterHeaders
from tests.builders import advisory_request, record, run_request
from tests.e2e.kafka_reading import (
    ADVISORY_TOPICS,
    RUN_TOPICS,
    Place,
    Sending,
    header_dict,
    new_settings,
    produce,
    read_topic,
    sending,
    topics_and_store,
    wait_for_records,
    wait_until,
)

NEVER = 3600.0


def run_of(name: str, **changes: Any) -> Sending:
    return sending(run_request(run_id=name, **changes))


def advisory_of(name: str, **changes: Any) -> Sending:
    return Sending(*record(advisory_request(run_id=name, **changes)))


async def publish(settings: Settings, *sendings: Sending) -> list[Place]:
    return await produce(settings, sendings, topic=settings.topics.advisory_requests)


@asynccontextmanager
async def store_of(
    broker: LocalBroker,
    folder: Path,
    wait_seconds: float,
    topics: Collection[str] | None = (*RUN_TOPICS, *ADVISORY_TOPICS),
) -> AsyncIterator[Settings]:
    settings = new_settings(
        broker, folder, advisory_wait_seconds=wait_seconds, session_timeout_ms=6000
    )
    async with topics_and_store(broker, settings, topics) as ready:
        yield ready


async def outcomes(settings: Settings) -> dict[Place, list[AdvisoryEvent]]:
    """Return the different events about each record, in the order of their delivery."""
    return outcomes_of(settings, await read_topic(settings, settings.topics.advisory_events))


def outcomes_of(
    settings: Settings, records: list[ConsumerRecord]
) -> dict[Place, list[AdvisoryEvent]]:
    found: dict[Place, dict[str, AdvisoryEvent]] = {}
    for each in records:
        event = AdvisoryEvent.model_validate_json(each.value)
        assert event.source.topic == settings.topics.advisory_requests
        place = Place(event.source.partition, event.source.offset)
        known = found.setdefault(place, {}).setdefault(event.event_id, event)
        assert known == event, "two deliveries of one event differ"
    return {place: list(events.values()) for place, events in found.items()}


async def words(settings: Settings, place: Place) -> list[str]:
    return words_of((await outcomes(settings)).get(place, []))


def words_of(events: list[AdvisoryEvent]) -> list[str]:
    return [event.error.code if event.error else event.outcome for event in events]


async def wait_for(settings: Settings, place: Place, word: str) -> None:
    def is_told(found: list[ConsumerRecord]) -> bool:
        return word in words_of(outcomes_of(settings, found).get(place, []))

    topic = settings.topics.advisory_events
    await wait_for_records(settings, topic, is_told, f"{word} of {place}")


async def wait_until_all_told(settings: Settings, places: list[Place]) -> None:
    def are_told(found: list[ConsumerRecord]) -> bool:
        return set(places) <= outcomes_of(settings, found).keys()

    topic = settings.topics.advisory_events
    await wait_for_records(settings, topic, are_told, f"events of {len(places)} records")


def links(settings: Settings) -> dict[str, dict[str, Any]]:
    return {
        path.name: json.loads(path.read_bytes())
        for path in sorted((settings.data_dir / "runs").rglob("*_advisory_*.json"))
    }


async def wait_until_persisted(settings: Settings, count: int) -> None:
    def is_there() -> bool:
        found = (settings.data_dir / "runs").rglob("*.json")
        return sum("_advisory_" not in path.name for path in found) >= count

    await wait_until(is_there, f"{count} runs")


def dead_letter_headers(each: ConsumerRecord) -> DeadLetterHeaders:
    ours = {
        name: value.decode()
        for name, value in header_dict(each).items()
        if value is not None and name.startswith("rmos-")
    }
    return DeadLetterHeaders.model_validate(ours)
