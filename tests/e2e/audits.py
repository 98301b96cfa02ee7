"""Stores to audit on the real broker, requests for audits, and what was told of them."""

import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from pipeline.app.audit import audit_worker
from pipeline.app.persist import persist_worker
from pipeline.app.worker import Worker
from pipeline.broker.local.broker import LocalBroker
from pipeline.settings import Settings
from schemas.audit_report import AuditReport
from tests.builders import red_request, run_request
from tests.e2e.kafka_reading import (
    Place,
    Sending,
    new_settings,
    produce,
    read_topic,
    sending,
    topics_and_store,
    wait_for_records,
    wait_until,
    wait_until_consumed,
)


def at(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def requests(count: int = 6) -> list[Sending]:
    """Return runs of two dates; every third one is RED, so its request is quarantined."""
    now = datetime.now(UTC)
    # On the date before, and less than a day ago: no record is late.
    end_of_yesterday = now.replace(hour=0, minute=0, second=0) - timedelta(seconds=1)
    times = (at(now), at(end_of_yesterday))
    kinds = (run_request, run_request, red_request)
    return [
        sending(kinds[number % 3](run_id=f"run_{number}", created_at_utc=times[number % 2]))
        for number in range(count)
    ]


@asynccontextmanager
async def store_to_audit(
    broker: LocalBroker, folder: Path, **changes: Any
) -> AsyncIterator[Settings]:
    """Make a store and its ledger with some runs in it, which their group has consumed."""
    unscheduled = {"audit_daily_at": -1, "audit_hourly": False, "session_timeout_ms": 6000}
    settings = new_settings(broker, folder / "store", **(unscheduled | changes))
    async with topics_and_store(broker, settings):
        async with persist_worker(settings):
            await produce(settings, requests())
            await wait_until_consumed(settings)
        yield settings


def audit_request(audit_id: str = "a1", **changes: Any) -> dict[str, Any]:
    return {"audit_id": audit_id, "scope": {"all": True}, "mode": "full"} | changes


def asking(request: dict[str, Any], key: bytes | None = None) -> Sending:
    return Sending(key or request["audit_id"].encode(), json.dumps(request).encode())


async def ask(settings: Settings, *sendings: Sending) -> list[Place]:
    return await produce(settings, sendings, topic=settings.topics.audit_requests)


async def reports(settings: Settings) -> list[AuditReport]:
    found = await read_topic(settings, settings.topics.audit_reports)
    return [AuditReport.model_validate_json(each.value) for each in found]


async def wait_for_reports(settings: Settings, count: int = 1) -> list[AuditReport]:
    """Wait until there are so many reports, however often each; return all of them."""
    await wait_for_records(
        settings,
        settings.topics.audit_reports,
        lambda found: len(found) >= count,
        f"{count} reports",
    )
    return await reports(settings)


async def findings(settings: Settings) -> list[dict[str, Any]]:
    found = await read_topic(settings, settings.topics.audit_findings)
    return [json.loads(each.value) for each in found]


async def dead_letters(settings: Settings, count: int) -> list[dict[str, str]]:
    """Wait for so many dead letters; return our headers of each."""
    topic = settings.topics.audit_dead_letters
    await wait_for_records(
        settings, topic, lambda found: len(found) >= count, f"{count} dead letters"
    )
    return [
        {name: value.decode() for name, value in each.headers if name.startswith("rmos-")}
        for each in await read_topic(settings, topic)
    ]


async def wait_until_committed(settings: Settings, places: Iterable[Place]) -> None:
    """Wait until the audit group has committed past `places`."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.bootstrap_servers,
        group_id=settings.topics.audit_group,
        enable_auto_commit=False,
    )
    await consumer.start()
    try:
        for place in places:
            partition = TopicPartition(settings.topics.audit_requests, place.partition)

            async def is_committed(
                partition: TopicPartition = partition, end: int = place.offset + 1
            ) -> bool:
                return (await consumer.committed(partition) or 0) >= end

            await wait_until(is_committed, f"{place} is committed")
    finally:
        await consumer.stop()


def journal_lines(settings: Settings, audit_id: str = "a1") -> list[dict[str, Any]]:
    path = settings.data_dir / "audits" / f"{audit_id}.ndjson"
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def stored_runs(settings: Settings) -> Sequence[Path]:
    return sorted((settings.data_dir / "runs").rglob("*.json"))


def flip(path: Path) -> None:
    """Flip one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    mode = path.stat().st_mode
    path.chmod(0o600)
    path.write_bytes(bytes(content))
    path.chmod(mode)


def files_of(settings: Settings) -> dict[str, tuple[bytes, int, int]]:
    """Return content, mode and time of every file but the audits' own and what SQLite keeps."""
    return {
        path.relative_to(settings.data_dir).as_posix(): (
            path.read_bytes(),
            path.stat().st_mode,
            path.stat().st_mtime_ns,
        )
        for path in sorted(settings.data_dir.rglob("*"))
        if path.is_file()
        and path.parent.name != "audits"
        and not path.name.endswith(("-shm", "-wal"))
    }


@asynccontextmanager
async def auditing(settings: Settings, **options: Any) -> AsyncIterator[Worker]:
    """Run an audit worker here; it must not end by itself."""
    async with audit_worker(settings, **options) as worker:
        yield worker
        for fault in worker.faults:
            assert not fault.done(), fault.exception()
