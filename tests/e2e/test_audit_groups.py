"""Audits that take long, audit workers beside each other, and a store that goes on meanwhile."""

import asyncio
import threading
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipeline.app.persist import persist_worker
from pipeline.audit.store_audit import StoreAudit
from pipeline.audit.worker import run as audit_run
from pipeline.broker.admin.groups import group_members
from pipeline.broker.local.broker import LocalBroker
from pipeline.core.progress import Progress
from pipeline.settings import Settings
from tests.builders import red_request, run_request
from tests.e2e import audits
from tests.e2e.audits import ask, asking, audit_request, auditing
from tests.e2e.kafka_reading import (
    SHORT_SESSION_MS,
    produce,
    read_topic,
    sending,
    wait_until,
    wait_until_consumed,
)

pytestmark = pytest.mark.e2e

POLL_INTERVAL_MS = 1000


@pytest.fixture
async def store(broker: LocalBroker, tmp_path: Path) -> AsyncIterator[Settings]:
    async with audits.store_to_audit(broker, tmp_path) as settings:
        yield settings


class HeldAudit(StoreAudit):
    """An audit that waits, in its thread, until the test lets it go on."""

    go_on: threading.Event
    under_way: list[str]

    def run(self, skip: Collection[str], progress: Progress, *others: Any) -> Iterator[Any]:
        self.under_way.append(self.request.audit_id)
        while not self.go_on.wait(0.01):
            progress("files of runs", 0, 0)
        yield from super().run(skip, progress, *others)


@contextmanager
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[HeldAudit]]:
    HeldAudit.go_on = threading.Event()
    HeldAudit.under_way = []
    monkeypatch.setattr(audit_run, "StoreAudit", HeldAudit)
    yield HeldAudit
    HeldAudit.go_on.set()


async def wait_for_begun(count: int) -> None:
    await wait_until(lambda: len(HeldAudit.under_way) >= count, f"{count} audits under way")


async def test_an_audit_longer_than_every_time_out_keeps_its_partition(
    store: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    limits = {
        "max_poll_interval_ms": POLL_INTERVAL_MS,
        "session_timeout_ms": SHORT_SESSION_MS,
    }
    store = store.model_copy(update=limits)
    with held(monkeypatch) as audit:
        async with auditing(store) as worker:
            places = await ask(store, asking(audit_request("a1")))
            await wait_for_begun(1)
            (member,) = await group_members(store, store.topics.audit_group)
            # Beyond the longest time between two polls, and the silence that a group bears.
            enough = loop.time() + 3 * POLL_INTERVAL_MS / 1000
            assert enough > loop.time() + store.session_timeout_ms / 1000
            await wait_until(lambda: loop.time() > enough, "time passes")
            assert worker.is_ready
            # Others come meanwhile, and wait.
            await ask(store, *(asking(audit_request(f"b{n}", mode="quick")) for n in range(3)))
            assert await group_members(store, store.topics.audit_group) == [member]
            assert audit.under_way == ["a1"]
            audit.go_on.set()
            await audits.wait_for_reports(store, 4)
            await audits.wait_until_committed(store, places)
            assert await group_members(store, store.topics.audit_group) == [member]
    assert sorted(audit.under_way) == ["a1", "b0", "b1", "b2"]


async def test_two_workers_audit_side_by_side_and_never_the_same(
    store: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held(monkeypatch) as audit:
        async with auditing(store) as first, auditing(store) as second:
            await wait_until(
                lambda: (
                    len(first.subscription.assigned) + len(second.subscription.assigned) == 3
                    and bool(first.subscription.assigned)
                    and bool(second.subscription.assigned)
                ),
                "both have partitions",
            )
            ids = [f"a{number}" for number in range(6)]
            requests = [asking(audit_request(each, mode="quick")) for each in ids]
            await ask(store, *requests, *requests)
            await wait_for_begun(2)
            assert len(set(audit.under_way)) == 2
            audit.go_on.set()
            found = await audits.wait_for_reports(store, 12)
    assert {each.audit_id for each in found} == set(ids)
    # Each was audited once, and answered twice with the same report.
    assert sorted(audit.under_way) == ids
    assert len({each.model_dump_json() for each in found}) == 6


async def test_a_rebalance_does_not_end_an_audit_that_stays(
    store: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held(monkeypatch) as audit:
        async with auditing(store) as first:
            (place,) = await ask(store, asking(audit_request("a1")))
            await wait_for_begun(1)
            async with auditing(store) as second:
                await wait_until(
                    lambda: (
                        bool(first.subscription.assigned) and bool(second.subscription.assigned)
                    ),
                    "both have partitions",
                )
                held_by_first = {each.partition for each in first.subscription.assigned}
                # Where its partition went to the other, the other waits for this very audit.
                await wait_for_begun(1 if place.partition in held_by_first else 2)
            audit.go_on.set()
            await audits.wait_for_reports(store)
            await audits.wait_until_committed(store, [place])
    assert len(await audits.reports(store)) >= 1
    assert len({each.model_dump_json() for each in await audits.reports(store)}) == 1


@pytest.mark.slow
async def test_a_store_that_goes_on_while_it_is_audited_has_no_finding(store: Settings) -> None:
    async with persist_worker(store), auditing(store):
        enough = asyncio.Event()
        writing = asyncio.create_task(_load(store, enough))
        try:
            modes = ("full", "quick", "full", "sampled")
            requests = [audit_request(f"a{n}", mode=mode) for n, mode in enumerate(modes)]
            await ask(store, *map(asking, requests))
            await audits.wait_for_reports(store, 4)
        finally:
            enough.set()
            await writing
        await wait_until_consumed(store)
    found = await audits.reports(store)
    assert [each.codes for each in found] == [{}] * 4, await audits.findings(store)
    assert max(each.counts.leaves for each in found) > 6


async def _load(store: Settings, enough: asyncio.Event) -> None:
    """Publish runs of now, some with a quarantined request."""
    kinds = (run_request, red_request)
    number = 0
    while not enough.is_set():
        now = audits.at(datetime.now(UTC))
        batch = range(number, number + 40)
        number += 40
        await produce(
            store,
            [sending(kinds[n % 2](run_id=f"load_{n}", created_at_utc=now)) for n in batch],
        )


async def test_two_schedulers_make_one_audit(store: Settings) -> None:
    moment = datetime(2026, 2, 1, 2, 30, tzinfo=UTC)
    scheduled = store.model_copy(update={"audit_daily_at": 2, "audit_hourly": True})
    options = {"clock": lambda: moment}
    async with auditing(scheduled, **options), auditing(scheduled, **options):
        asked = store.topics.audit_requests

        async def are_asked() -> bool:
            return len({each.key for each in await read_topic(store, asked)}) == 2

        await wait_until(are_asked, "two audits are asked for")
        # Another that starts then asks for nothing, or is answered by the same report.
        await audits.wait_for_reports(store, 2)
        async with auditing(scheduled, **options):
            places = await ask(store, asking(audit_request("last", mode="quick")))
            await audits.wait_until_committed(store, places)
    found = await audits.reports(store)
    assert {(each.audit_id, each.mode) for each in found} == {
        ("daily-2026-02-01", "full"),
        ("hourly-2026-02-01T02", "quick"),
        ("last", "quick"),
    }
    assert len({each.model_dump_json() for each in found}) == 3
    begun = {path.stem for path in (store.data_dir / "audits").glob("*.ndjson")}
    assert begun == {each.audit_id for each in found}
