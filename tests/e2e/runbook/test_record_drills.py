"""Drills about records, verdicts and advisories, as `docs/runbook/records.md` has them."""

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from pipeline.app.advise import advise_worker
from pipeline.app.persist import persist_worker
from pipeline.broker.connection import admin_client
from tests.builders import advisory_request, run_request
from tests.e2e.advisories import advisory_of, publish, wait_for
from tests.e2e.kafka_reading import Sending, produce, sending, wait_until_consumed
from tests.e2e.runbook import wrong_versions
from tests.e2e.runbook.drill import Drill
from tests.e2e.runbook.shop import consume, deploy, runs, write
from tests.e2e.store_audit import audit_store

pytestmark = [pytest.mark.e2e, pytest.mark.every_topic]

PAGE = "records.md"
WORKER = "rmos-persist@1"


async def test_most_records_fail(drill: Drill) -> None:
    drill.read(PAGE, "Most records fail")
    bad = [Sending(f"bad_{n}".encode(), b"{", partition=7) for n in range(600)]
    await produce(drill.settings, [*bad[:300], *runs(40), *bad[300:]])
    drill.units.start(WORKER)
    assert await drill.units.ended(WORKER) == 4
    await drill.you_see()
    drill.before_interrupt = lambda: wait_until_consumed(drill.settings)
    await drill.run()
    await drill.then()
    audit = await audit_store(drill.settings)
    audit.assert_whole()
    assert audit.outcomes() == {"persisted": 40, "INVALID_JSON": 600}


async def test_a_conflict(drill: Drill) -> None:
    drill.read(PAGE, "A conflict")
    await produce(
        drill.settings,
        [sending(run_request(run_id="run_a")), sending(run_request(run_id="run_a", mode="router"))],
    )
    write(
        drill.settings.data_dir.parent / "changed.json", run_request(run_id="run_b", mode="router")
    )
    drill.units.start(WORKER)
    await drill.you_see()
    await drill.run()
    await drill.then()


async def test_look_at_dead_letters(drill: Drill) -> None:
    drill.read(PAGE, "Look at dead letters")
    await produce(drill.settings, [Sending(b"run_a", b"{"), *runs(5)])
    drill.units.start(WORKER)
    await wait_until_consumed(drill.settings)
    await drill.you_see()
    await drill.run()
    await drill.then()


async def test_the_program_renders_other_bytes(drill: Drill) -> None:
    drill.read(PAGE, "The program renders other bytes")
    await consume(drill.settings, [sending(run_request(run_id="run_a"))])
    before = (drill.settings.data_dir / "runs/2025-12-18/run_a.json").read_bytes()
    deploy(drill, wrong_versions.OTHER_BYTES)
    write(drill.settings.data_dir.parent / "run_a.json", run_request(run_id="run_a"))
    again = [run_request(run_id="run_a"), run_request(run_id="run_new")]
    await produce(drill.settings, map(sending, again))
    drill.units.start(WORKER)
    await wait_until_consumed(drill.settings)
    await drill.you_see()
    await drill.run()
    await drill.then()
    assert (drill.settings.data_dir / "runs/2025-12-18/run_a.json").read_bytes() == before


async def test_the_program_refuses_good_records(drill: Drill) -> None:
    drill.read(PAGE, "The program refuses good records")
    deploy(drill, wrong_versions.FAILS_ON_GOOD_RECORDS)
    await produce(drill.settings, runs(10))
    drill.units.start(WORKER)
    await wait_until_consumed(drill.settings)
    await drill.you_see()
    await drill.run()
    await wait_until_consumed(drill.settings)
    await drill.then()
    audit = await audit_store(drill.settings)
    assert audit.outcomes() == {"persisted": 10, "INTERNAL_ERROR": 10}
    assert len(audit.artifacts()) == 10


async def test_an_advisory_without_its_run(drill: Drill) -> None:
    drill.read(PAGE, "An advisory without its run")
    drill.units.environment["RMOS_ADVISORY_WAIT_SECONDS"] = "0.4"
    await consume(drill.settings, runs(5))
    drill.units.start("rmos-advise")
    (place,) = await publish(drill.settings, advisory_of("run_a"))
    await produce(drill.settings, [sending(run_request(run_id="run_a"))])
    await wait_for(drill.settings, place, "RUN_NOT_FOUND")
    await drill.you_see()
    await drill.run()
    await wait_until_consumed(drill.settings)
    await drill.then()


async def test_claims_are_not_linked(drill: Drill) -> None:
    drill.read(PAGE, "Claims are not linked")
    settings = drill.settings
    (place,) = await publish(settings, advisory_of("run_a"))
    async with advise_worker(settings):
        # Nothing has been reported, so no dead letter carries the request.
        await wait_for(settings, place, "waiting")
    requests = TopicPartition(settings.topics.advisory_requests, place.partition)
    async with admin_client(settings) as admin:
        await admin.delete_records({requests: RecordsToDelete(before_offset=1)})
    await produce(settings, [sending(run_request(run_id="run_a"))])
    async with persist_worker(settings):
        await wait_until_consumed(settings)
    write(
        settings.data_dir.parent / "again.json",
        advisory_request(run_id="run_a", advisory_id="adv_2"),
    )
    drill.units.start("rmos-advise")
    await drill.you_see()
    await drill.run()
    await drill.then()
