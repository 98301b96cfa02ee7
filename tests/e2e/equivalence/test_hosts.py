"""A store of many hosts is that of one disk, byte for byte.

The same topic goes through one worker of each kind on a disk, and through several on a bucket with
an index in PostgreSQL, in other batches and with the partitions moving between them.
"""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

pytest.importorskip("obstore", reason="the extra scale is not installed")

from pydantic import SecretStr
from sqlalchemy import text

from pipeline.audit.rules.finding import VERSIONS_NOT_SEEN
from pipeline.broker.local.broker import LocalBroker
from pipeline.settings import Settings, read_settings
from pipeline.storage.store import Store, create, init_key, open_to_read, open_to_write
from tests.bucket.conftest import moto, quick_server, versitygw
from tests.bucket.servers import BUCKET, delete_key, point_at
from tests.e2e.api_service import RUNS, api_only
from tests.e2e.equivalence.mixed_records import mixed_advisories, mixed_records
from tests.e2e.equivalence.outcomes import (
    NEVER_SECONDS,
    PATIENCE_SECONDS,
    STORE_ID,
    key_file_in,
    until_consumed,
)
from tests.e2e.kafka_reading import header_dict, partitions_of, produce, read_topic, topics_of
from tests.e2e.worker_processes import RMOS, WorkerPool, worker_pool
from tests.postgres.servers import running

__all__ = ["moto", "quick_server", "versitygw"]

pytestmark = [pytest.mark.e2e, pytest.mark.every_topic]

LIMIT_BYTES = 1 << 30
BATCHES = ("37", "64", "111")
"""Most records of a batch of each worker of many hosts; one on a disk has the usual one."""

RECORDS = int(os.environ.get("EQUAL_RECORDS", "1000"))
"""With 20,000 it takes long: `EQUAL_RECORDS=20000 pytest -n0 -m slow` and the name of this file."""

HEADERS = ("content-type", "content-length", "content-disposition", "cache-control", "etag")
"""Those of an answer that do not name the moment or the request."""

ASKED = 40
"""Runs that the API is asked about."""


@pytest.fixture(scope="session")
def index_url() -> Iterator[str]:
    """Give the URL of an empty database."""
    with running("18") as server:
        yield server.new_database()


@pytest.fixture
def pair(
    broker: LocalBroker,
    tmp_path: Path,
    quick_server: str,
    index_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[Settings, Settings]:
    """Give the settings of a store on a disk, and of the same store on many hosts."""
    point_at(monkeypatch, quick_server)
    disk = read_settings(
        prefix="hosts",
        bootstrap_servers=broker.bootstrap_servers,
        data_dir=tmp_path / "store",
        ledger_key_file=key_file_in(tmp_path),
    )
    shared = disk.model_copy(
        update={"store_url": f"s3://{BUCKET}/rmos", "index_url": SecretStr(index_url)}
    )
    create(disk, cluster_id=broker.cluster_id, store_id=STORE_ID)
    init_key(disk)
    return disk, shared


async def consume(
    settings: Settings, workers: WorkerPool, batches: tuple[str, ...], sent: dict[str, int]
) -> None:
    """Let workers take all requests, then all advisories."""
    topics = settings.topics
    environment = {
        "RMOS_LEDGER_KEY_FILE": str(settings.ledger_key_file),
        "RMOS_ADVISORY_WAIT_SECONDS": NEVER_SECONDS,
    }
    for kind, topic, group in (
        ("persist", topics.run_requests, topics.persist_group),
        ("advisories", topics.advisory_requests, topics.advise_group),
    ):
        assert sent[topic]
        started = [
            workers.fork(
                [str(RMOS), "worker", kind], settings, **environment, RMOS_BATCH_RECORDS=size
            )
            for size in batches
        ]
        await until_consumed(settings, topic, group, *started)
        for worker in started:
            assert await worker.stop() == 0, worker.text


async def printed(
    settings: Settings, workers: WorkerPool, *words: str, status: int = 0
) -> list[str]:
    """Return the lines of a command."""
    key_file = str(settings.ledger_key_file)
    command = workers.fork([str(RMOS), *words], settings, RMOS_LEDGER_KEY_FILE=key_file)
    assert await command.ended(seconds=PATIENCE_SECONDS) == status, command.text
    return command.text.splitlines()


async def make(settings: Settings, workers: WorkerPool) -> None:
    """Make a store by commands, as an operator does."""
    made, *_ = await printed(settings, workers, "store", "init", "--store-id", STORE_ID, "--json")
    assert made.startswith("{")
    await printed(settings, workers, "ledger", "init")


async def back_to_start(settings: Settings) -> None:
    """Let both groups begin again."""
    topics = settings.topics
    for topic, group in (
        (topics.run_requests, topics.persist_group),
        (topics.advisory_requests, topics.advise_group),
    ):
        consumer = AIOKafkaConsumer(
            bootstrap_servers=settings.bootstrap_servers, group_id=group, enable_auto_commit=False
        )
        await consumer.start()
        try:
            places: list[TopicPartition] = partitions_of(settings, topic)
            consumer.assign(places)
            await consumer.commit(dict.fromkeys(places, 0))
        finally:
            await consumer.stop()


async def messages(settings: Settings) -> dict[str, list[str]]:
    """Return what was published by event_id, or by the place of the dead record."""
    topics = settings.topics
    found = defaultdict(list)
    for topic in (topics.run_events, topics.advisory_events):
        for each in await read_topic(settings, topic):
            key = json.loads(each.value or b"{}")["event_id"]
            found[f"{topic} {key}"].append(repr((each.key, each.value, list(each.headers))))
    for topic in (topics.run_dead_letters, topics.advisory_dead_letters):
        for each in await read_topic(settings, topic):
            headers = header_dict(each)
            place = headers["rmos-source-partition"], headers["rmos-source-offset"]
            found[f"{topic} {place}"].append(repr((each.key, each.value, list(each.headers))))
    return found


def contents(store: Store) -> dict[str, str]:
    """Return every file but locks, audits and what shows where batches were cut, by path."""
    return {
        path: hashlib.sha256(store.files.read(path, LIMIT_BYTES)).hexdigest()
        for path in store.files.paths_below("")
        if ".p/" not in path
        and not path.startswith(("index", "audits/"))
        and not path.endswith("/lock")
    }


def kept(store: Store) -> dict[str, Any]:
    """Return what the index knows."""
    return {
        "runs": list(store.index.all_runs()),
        "advisories": list(store.index.all_advisories()),
        "positions": store.index.positions(1),
    }


def questions(store: Store) -> Iterator[str]:
    """Yield paths to ask the API for."""
    runs = list(store.index.all_runs())
    step = max(1, len(runs) // ASKED)
    asked = [run.run_id for run in runs[::step]]
    yield from ("", "?limit=1000", "?status=BLOCKED", "?status=OK&limit=7", "/run_that_is_none")
    yield f"/diff?a={asked[0]}&b={asked[1]}"
    for run_id in asked:
        yield from (
            f"/{run_id}{rest}"
            for rest in ("", "/advisories", "/attachments", "/attachments/verify", "/download")
        )
        yield from (f"/{run_id}/toolpath", f"/{run_id}/evidence")
    for advisory in store.index.all_advisories():
        yield f"/{advisory.run_id}"
        yield f"/{advisory.run_id}/attachments/{advisory.claim.content_sha256}"


async def replayed(
    disk: Settings, shared: Settings, workers: WorkerPool, command: str
) -> dict[str, Any]:
    """Replay both, and compare what is printed; return the summary."""
    # Some records name uploads that never came.
    words = ("replay", command, "--json")
    on_disk = await printed(disk, workers, *words, status=5)
    assert await printed(shared, workers, *words, status=5) == on_disk
    summary: dict[str, Any] = json.loads(on_disk[-1])["summary"]
    return summary


def differences(summary: dict[str, Any]) -> list[int]:
    """Return the counts of what is not as the topics say."""
    return [summary[kind] for kind in ("missing", "different", "foreign")]


async def check_restored(disk: Settings, shared: Settings, workers: WorkerPool) -> None:
    """Check that what is gone from both stores comes back: files, and a row."""
    async with opened(shared) as store:
        before, rows = contents(store), kept(store)
        run, other, *_ = rows["runs"]
        link = next(each for each in rows["advisories"] if each.link_path)
        blob = next(path for path in before if path.startswith("attachments/"))
    for path in (run.artifact_path, str(link.link_path), blob):
        (disk.data_dir / path).unlink()
        delete_key(os.environ["AWS_ENDPOINT_URL"], f"rmos/{path}")
    for settings in (disk, shared):
        store, _ = open_to_write(settings)
        with closing(store), store.index.transaction() as transaction:
            for table in ("attachments", "withheld_blobs", "withheld_payloads", "runs"):
                gone = text(f"DELETE FROM {table} WHERE run_id = :run_id")
                transaction.connection.execute(gone, {"run_id": other.run_id})
    # Three files, and the row of a run.
    assert sum(differences(await replayed(disk, shared, workers, "verify"))) == 4
    assert (await replayed(disk, shared, workers, "restore"))["restored"] == 3
    assert not any(differences(await replayed(disk, shared, workers, "verify")))
    async with opened(shared) as store:
        assert contents(store) == before
        assert kept(store) == rows


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Store]:
    with closing(open_to_read(settings)) as store:
        yield store


async def answers(settings: Settings, paths: list[str]) -> dict[str, tuple[Any, ...]]:
    """Return status, kind and bytes of each answer of the API."""
    found = {}
    async with api_only(settings) as api:
        for path in paths:
            answer = await api.http.get(RUNS + path)
            headers = {name: answer.headers.get(name) for name in HEADERS}
            found[path] = answer.status_code, headers, answer.content
    return found


async def audited(settings: Settings, workers: WorkerPool) -> list[dict[str, Any]]:
    """Return what an audit by a worker finds, and reports, without its id and the times."""
    key_file, audit_id = str(settings.ledger_key_file), "many" if settings.is_shared else "one"
    worker = workers.fork(
        [str(RMOS), "worker", "audit"],
        settings,
        RMOS_LEDGER_KEY_FILE=key_file,
        RMOS_AUDIT_HOURLY="false",
        RMOS_AUDIT_DAILY_AT="-1",
    )
    words = ("audit", "run", "--audit-id", audit_id, "--json")
    # Records with times of their own are late.
    named, *lines = await printed(settings, workers, *words, status=5)
    assert named == f"audit {audit_id}"
    *findings, summary = map(json.loads, lines)
    report = summary["summary"]
    shown = await printed(settings, workers, "audit", "report", audit_id, "--json", status=5)
    assert json.loads(shown[-1]) == report
    assert await worker.stop() == 0, worker.text
    for each in (*findings, report):
        assert each.pop("audit_id") == audit_id
    assert report.pop("started_at_utc") <= report.pop("finished_at_utc")
    integrity = report["verdicts"]["integrity"]
    # Of a bucket alone.
    integrity["reason"] = integrity["reason"].removesuffix(VERSIONS_NOT_SEEN)
    return [*findings, report]


@pytest.mark.slow
@pytest.mark.timeout(3600)
async def test_many_hosts_leave_what_one_disk_does(
    pair: tuple[Settings, Settings], tmp_path: Path
) -> None:
    disk, shared = pair
    topics = disk.topics
    times = {"message.timestamp.type": "CreateTime"}
    async with topics_of(disk, of_requests=times):
        requests, advisories = list(mixed_records(RECORDS)), list(mixed_advisories(RECORDS))
        await produce(disk, requests, compression="lz4")
        await produce(disk, advisories, topic=topics.advisory_requests, compression="lz4")
        sent = {topics.run_requests: len(requests), topics.advisory_requests: len(advisories)}
        with worker_pool(tmp_path) as workers:
            await consume(disk, workers, ("2000",), sent)
            of_disk = await messages(disk)
            await back_to_start(disk)
            await make(shared, workers)
            await consume(shared, workers, BATCHES, sent)
            listed = ("runs", "list", "--limit", "1000", "--json")
            assert await printed(shared, workers, *listed) == await printed(disk, workers, *listed)
            of_both = await messages(disk)
            found = await audited(disk, workers)
            assert found[-1]["store_root"]
            assert await audited(shared, workers) == found
            plan = ("replay", "plan", "--json")
            assert await printed(shared, workers, *plan) == await printed(disk, workers, *plan)
            assert not any(differences(await replayed(disk, shared, workers, "verify")))
            await check_restored(disk, shared, workers)

        # Every event and dead letter was published again, with the same bytes.
        assert of_both.keys() == of_disk.keys()
        assert [key for key, each in of_both.items() if len(set(each)) > 1] == []
        assert [key for key, each in of_both.items() if len(each) <= len(of_disk[key])] == []

        async with opened(disk) as one, opened(shared) as many:
            assert contents(many) == contents(one)
            assert kept(many) == kept(one)
            paths = list(questions(one))
        of_one = await answers(disk, paths)
        of_many = await answers(shared, paths)
        differing = {
            path: (of_one[path], of_many[path]) for path in paths if of_many[path] != of_one[path]
        }
        assert differing == {}
