"""A worker whose bucket or database is away puts its batch off, says so, and goes on by itself."""

from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("obstore", reason="the extra scale is not installed")

from pydantic import SecretStr

from pipeline import metrics
from pipeline.app.persist import persist_worker
from pipeline.broker.local.broker import LocalBroker
from pipeline.bucket.connection import Patience
from pipeline.bucket.objects import Objects
from pipeline.settings import Settings
from pipeline.storage import shared
from pipeline.storage.store import create, init_key, open_to_read
from tests.bucket.buckets import HASTE
from tests.bucket.conftest import moto, quick_server, versitygw
from tests.bucket.faulty_proxy import FAULTS as BUCKET_FAULTS
from tests.bucket.faulty_proxy import Proxy, one_in, standing_before
from tests.bucket.servers import BUCKET, point_at
from tests.builders import run_request
from tests.e2e.equivalence.calm_run import check_as_on_a_disk
from tests.e2e.equivalence.mixed_records import mixed_records
from tests.e2e.equivalence.outcomes import key_file_in
from tests.e2e.kafka_reading import (
    RUN_TOPICS,
    new_settings,
    produce,
    read_topic,
    sending,
    topics_of,
    wait_until,
    wait_until_consumed,
)
from tests.postgres.proxy import FAULTS
from tests.postgres.proxy import standing_before as before_postgres
from tests.postgres.servers import Server, running, standby_of
from tests.postgres.test_failover import both, rows_of

__all__ = ["moto", "quick_server", "versitygw"]

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

IMPATIENT = Patience(timedelta(milliseconds=10), timedelta(seconds=1), timedelta(seconds=2))


def settings_of(broker: LocalBroker, tmp_path: Path, server: Server) -> Settings:
    """Make a store in the bucket and a database; return its settings."""
    settings = new_settings(broker, tmp_path / "none").model_copy(
        update={
            "store_url": f"s3://{BUCKET}/{tmp_path.name}",
            "index_url": SecretStr(server.new_database()),
            "ledger_key_file": key_file_in(tmp_path),
        }
    )
    create(settings, cluster_id=broker.cluster_id)
    init_key(settings)
    return settings


def put_off(settings: Settings) -> float:
    labels = {"group": settings.topics.persist_group, "kind": "batch"}
    return metrics.REGISTRY.get_sample_value("rmos_not_ready_reasons", labels) or 0.0


def bucket_away(proxy: Proxy, _server: Server) -> Callable[[], None]:
    before, proxy.choose = proxy.choose, lambda *_: "503"

    def back() -> None:
        proxy.choose = before

    return back


def database_away(_proxy: Proxy, server: Server) -> Callable[[], None]:
    server.stop()
    return server.start


@pytest.mark.parametrize("away", [bucket_away, database_away])
async def test_a_worker_goes_on_once_what_was_away_is_back(
    away: Callable[[Proxy, Server], Callable[[], None]],
    broker: LocalBroker,
    quick_server: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with running("18") as server, standing_before(quick_server, lambda *_: None) as proxy:
        point_at(monkeypatch, proxy.address)
        settings = settings_of(broker, tmp_path, server)
        monkeypatch.setattr(shared, "Objects", partial(Objects, patience=IMPATIENT))
        async with topics_of(settings, RUN_TOPICS), persist_worker(settings) as worker:
            await produce(settings, [sending(run_request(run_id=f"before_{n}")) for n in range(5)])
            await wait_until_consumed(settings)
            back = away(proxy, server)
            await produce(settings, [sending(run_request(run_id=f"while_{n}")) for n in range(5)])
            await wait_until(lambda: put_off(settings) > 0, "the worker says that it is not ready")
            assert not [run_id for run_id in await told_of(settings) if b"while" in run_id]
            back()
            await wait_until_consumed(settings)
            await wait_until(lambda: put_off(settings) == 0, "the worker is ready again")
            assert not any(each.done() for each in worker.faults)
            told = await told_of(settings)
        assert len(told) == len(set(told)) == 10
        with closing(open_to_read(settings)) as store:
            assert store.index.count() == 10


async def test_a_worker_goes_on_by_itself_in_a_storm_of_faults(
    broker: LocalBroker,
    quick_server: str,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One request in twelve fails, and one commit in four, of which there are few."""
    with (
        running("18") as server,
        standing_before(quick_server, lambda *_: None) as bucket,
        before_postgres(server, tmp_path_factory.mktemp("pg")) as database,
    ):
        point_at(monkeypatch, bucket.address)
        calm = settings_of(broker, tmp_path, server)
        assert calm.index_url is not None
        url = SecretStr(database.url(calm.index_url.get_secret_value()))
        settings = calm.model_copy(
            update={"index_url": url, "batch_records": 6, "broker_pause_seconds": 0.05}
        )
        monkeypatch.setattr(shared, "Objects", partial(Objects, patience=HASTE))
        times = {"message.timestamp.type": "CreateTime"}
        async with (
            topics_of(settings, RUN_TOPICS, of_requests=times),
            persist_worker(settings, accepted_rejects=300) as worker,
        ):
            # All but silence, which takes its time.
            bucket.choose = one_in(12, seed=1, among=BUCKET_FAULTS[:-1])
            commit_fails = one_in(4, seed=1, among=FAULTS)
            database.choose = lambda: commit_fails("COMMIT", "")
            await produce(settings, mixed_records(150))
            await wait_until_consumed(settings)
            assert not any(each.done() for each in worker.faults)
            assert len(bucket.faults) > 3
            assert database.faults
            bucket.choose, database.choose = lambda *_: None, lambda: None
            await check_as_on_a_disk(settings, tmp_path)


async def test_a_worker_follows_a_failover_that_lost_what_was_acknowledged(
    broker: LocalBroker, quick_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_at(monkeypatch, quick_server)
    with running("18") as primary, standby_of(primary) as standby:
        settings = settings_of(broker, tmp_path, primary)
        assert settings.index_url is not None
        own = settings.index_url.get_secret_value()
        copy = own.replace(str(primary.folder), str(standby.folder))
        url = f"{both(own, primary, standby)}&target_session_attrs=read-write"
        settings = settings.model_copy(update={"index_url": SecretStr(url)})
        requests = list(mixed_records(300))
        times = {"message.timestamp.type": "CreateTime"}
        async with (
            topics_of(settings, RUN_TOPICS, of_requests=times),
            persist_worker(settings, accepted_rejects=300) as worker,
        ):
            await produce(settings, requests[:100])
            await wait_until_consumed(settings)
            await wait_until(lambda: rows_of(copy) == rows_of(own), "the standby has all rows")
            standby.stop()
            lost = run_request(run_id="lost")
            await produce(settings, [*requests[100:200], sending(lost, partition=0)])
            await wait_until_consumed(settings)
            acknowledged = rows_of(own)
            primary.kill()
            standby.start()
            assert rows_of(copy) < acknowledged
            # By other partitions than that whose row is lost, and none by that.
            conflict = sending(lost | {"mode": "other"}, partition=2)
            await produce(settings, [sending(lost, partition=1), conflict])
            await wait_until(lambda: put_off(settings) > 0, "the worker says that it is not ready")
            standby.promote()
            await wait_until_consumed(settings)
            await produce(settings, requests[200:])
            await wait_until_consumed(settings)
            assert not any(each.done() for each in worker.faults)
            await check_as_on_a_disk(settings, tmp_path)


async def told_of(settings: Settings) -> list[bytes]:
    """Return the run of each event."""
    return [each.key for each in await read_topic(settings, settings.topics.run_events)]
