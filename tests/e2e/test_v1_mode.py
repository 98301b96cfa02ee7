"""v1 mode on the real broker: the consumer stores rows of runs.json, and nothing is lost by it."""

import asyncio
import json
import shutil
import signal
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from aiokafka import ConsumerRecord

from pipeline.app.persist import persist_worker
from pipeline.broker.admin.groups import CommittedOffset, commit_offsets, committed_offsets
from pipeline.errors import StoreError, StoreNotReadyError
from pipeline.legacy.v1.row import MARK
from pipeline.legacy.v1_mode import start as legacy_start
from pipeline.settings import Settings
from schemas.run_event import RunEvent
from tests.builders import incomplete_request, red_request, run_request, sha256
from tests.e2e.api_service import api_only
from tests.e2e.kafka_reading import (
    SHORT_SESSION_MS,
    Sending,
    produce,
    read_topic,
    sending,
    wait_until,
    wait_until_consumed,
)
from tests.e2e.worker_processes import RMOS, WorkerPool, only_sentence

pytestmark = [pytest.mark.e2e, pytest.mark.every_topic]

OLD = {"run_v1": {"run_id": "run_v1", "status": "OK", "meta": None}}


@pytest.fixture
def v1_path(tmp_path: Path) -> Path:
    path = tmp_path / "v1" / "runs.json"
    path.parent.mkdir()
    path.write_text(json.dumps(OLD, indent=2, sort_keys=True))
    return path


@pytest.fixture
def v1_settings(store_settings: Settings, v1_path: Path) -> Settings:
    return store_settings.model_copy(
        update={
            "runs_v2_enabled": False,
            "run_store_path": v1_path,
            "judge_in_child_process": False,
        }
    )


def rows_at(settings: Settings) -> dict[str, Any]:
    rows: dict[str, Any] = json.loads(settings.run_store_path.read_text())
    return rows


async def group_at(settings: Settings, group: str) -> dict[tuple[str, int], int]:
    return await committed_offsets(settings, group, [settings.topics.run_requests])


async def put_group(settings: Settings, group: str, offsets: dict[int, int]) -> None:
    """Let an empty group stand at these offsets of partitions."""
    topic = settings.topics.run_requests
    places = {(topic, number): CommittedOffset(at, "") for number, at in offsets.items()}
    await commit_offsets(settings, group, places)


async def wait_until_stored(settings: Settings, count: int) -> None:
    """Wait until the v1 group has committed `count` records in all."""

    async def is_stored() -> bool:
        return sum((await group_at(settings, settings.topics.persist_v1_group)).values()) >= count

    await wait_until(is_stored, f"{count} records in v1 mode")


def told(records: list[ConsumerRecord]) -> dict[str, list[RunEvent]]:
    events = defaultdict(list)
    for each in records:
        event = RunEvent.model_validate_json(each.value)
        events[event.event_id].append(event)
    return dict(events)


async def test_records_become_rows_and_the_same_events_without_an_artifact(
    v1_settings: Settings,
) -> None:
    records = [
        sending(run_request(run_id="run_a"), partition=0),
        sending(red_request(run_id="run_b"), partition=0),
        Sending(b"run_x", None, partition=0),
        sending(run_request(run_id="run_a"), partition=0),
        sending(run_request(run_id="run_a", notes="changed"), partition=0),
        sending(incomplete_request(run_id="run_c"), partition=0),
        sending(run_request(run_id="run_v1"), partition=0),
    ]
    await produce(v1_settings, records)
    async with persist_worker(v1_settings):
        await wait_until_stored(v1_settings, len(records))
    in_v1 = told(await read_topic(v1_settings, v1_settings.topics.run_events))
    by_offset = sorted((found[0] for found in in_v1.values()), key=lambda e: e.source.offset)
    assert [(event.outcome, event.may_cut) for event in by_offset] == [
        ("persisted", True),
        ("persisted", False),
        ("rejected", False),
        ("duplicate", True),
        ("conflict", False),
        ("persisted", False),
        ("conflict", False),
    ]
    assert {event.artifact_path for event in by_offset} == {None}
    letters = await read_topic(v1_settings, v1_settings.topics.run_dead_letters)
    codes = sorted(dict(each.headers)["rmos-error-code"].decode() for each in letters)
    assert codes == ["RUN_CONFLICT", "RUN_CONFLICT", "TOMBSTONE"]
    rows = rows_at(v1_settings)
    assert set(rows) == {"run_v1", "run_a", "run_b", "run_c"}
    assert rows["run_v1"] == OLD["run_v1"]

    # Switched back: every artifact is made, and told under the ids that were told before.
    async with persist_worker(v1_settings.model_copy(update={"runs_v2_enabled": True})):
        await wait_until_consumed(v1_settings)
    events = told(await read_topic(v1_settings, v1_settings.topics.run_events))
    assert events.keys() == in_v1.keys()
    for run_id in ("run_a", "run_b", "run_c"):
        last = next(
            found[-1]
            for found in events.values()
            if (found[-1].run_id, found[-1].outcome) == (run_id, "persisted")
        )
        assert last.artifact_path is not None
        content = (v1_settings.data_dir / last.artifact_path).read_bytes()
        assert sha256(content) == rows[run_id]["meta"][MARK]["artifact_sha256"]
    assert rows_at(v1_settings) == rows


async def test_the_group_begins_where_it_or_the_other_stands_whichever_is_later(
    v1_settings: Settings,
) -> None:
    topics = v1_settings.topics
    requests = [sending(run_request(run_id=f"run_{n}"), partition=n % 3) for n in range(9)]
    await produce(v1_settings, requests)
    topic = topics.run_requests
    await put_group(v1_settings, topics.persist_group, {0: 2, 1: 1})
    await put_group(v1_settings, topics.persist_v1_group, {1: 3, 0: 1})
    async with persist_worker(v1_settings):
        await wait_until_stored(v1_settings, 9)
    assert set(rows_at(v1_settings)) == {"run_v1", "run_6", "run_2", "run_5", "run_8"}
    found = await group_at(v1_settings, topics.persist_group)
    assert found == {(topic, 0): 2, (topic, 1): 1}


async def test_a_second_worker_joins_the_first_and_moves_nothing(v1_settings: Settings) -> None:
    topics = v1_settings.topics
    place = (topics.run_requests, 0)
    await produce(v1_settings, [sending(run_request(), partition=0)])
    async with persist_worker(v1_settings):
        await wait_until_stored(v1_settings, 1)
        async with persist_worker(v1_settings):
            pass
    assert (await group_at(v1_settings, topics.persist_v1_group))[place] == 1


async def test_a_v2_store_that_is_gone_is_not_needed(v1_settings: Settings, tmp_path: Path) -> None:
    gone = v1_settings.model_copy(update={"data_dir": tmp_path / "gone"})
    await produce(gone, [sending(run_request(), partition=0)])
    async with persist_worker(gone):
        await wait_until_stored(gone, 1)
    (event,) = told(await read_topic(gone, gone.topics.run_events)).values()
    assert (event[0].outcome, event[0].may_cut) == ("persisted", True)
    assert not gone.data_dir.exists()
    # Its events have ids of their own: nobody could say which the store would have given.
    async with persist_worker(v1_settings.model_copy(update={"runs_v2_enabled": True})):
        await wait_until_consumed(v1_settings)
    assert len(told(await read_topic(gone, gone.topics.run_events))) == 2


async def test_a_v2_store_of_another_cluster_is_refused_here_too(v1_settings: Settings) -> None:
    store = v1_settings.data_dir / "store.json"
    text = json.loads(store.read_text()) | {"cluster_id": "AAAAAAAAAAAAAAAAAAAAAA"}
    store.chmod(0o644)
    store.write_text(json.dumps(text))
    with pytest.raises(StoreNotReadyError, match="belongs to the Kafka cluster AAAA"):
        await legacy_start.check_v1_start(v1_settings, writes=(), accept_loss=True)


async def test_a_file_that_does_not_fit_is_refused_in_one_sentence(v1_settings: Settings) -> None:
    async def refusal(*, accept_loss: bool = False) -> str:
        with pytest.raises(StoreError) as caught:
            await legacy_start.check_v1_start(v1_settings, writes=(), accept_loss=accept_loss)
        assert caught.value.exit_status == 6
        return str(caught.value)

    path, topics = v1_settings.run_store_path, v1_settings.topics
    await produce(v1_settings, [sending(run_request(), partition=0)])
    await put_group(v1_settings, topics.persist_group, {0: 1})
    path.write_text("{")
    assert "put back a whole copy" in await refusal(accept_loss=True)
    path.unlink()
    assert "rmos migrate rollback" in await refusal()
    await legacy_start.check_v1_start(v1_settings, writes=(), accept_loss=True)
    assert path.read_text() == "{}"
    await legacy_start.check_v1_start(v1_settings, writes=(), accept_loss=False)
    shutil.rmtree(path.parent)
    assert "mount its volume" in await refusal(accept_loss=True)
    path.parent.mkdir()
    path.write_text("{}")
    await put_group(v1_settings, topics.persist_group, {0: 5})
    assert "the log ends at 1: the broker has lost offsets 1 to " in await refusal()


async def test_the_advise_worker_says_that_it_does_not_run(
    v1_settings: Settings, workers: WorkerPool
) -> None:
    command = [str(RMOS), "worker", "advisories"]
    worker = workers.fork(command, v1_settings, RMOS_RUNS_V2_ENABLED="off")
    assert await worker.ended() == 2
    assert only_sentence(worker.text).startswith("The advise worker does not run")


async def test_the_api_publishes_and_answers_as_v1_did(v1_settings: Settings) -> None:
    async with persist_worker(v1_settings) as worker:
        await wait_until(lambda: worker.is_ready, "the worker is ready")
        async with api_only(v1_settings) as service:
            green = await service.post(run_request(run_id="run_g"))
            again = await service.post(run_request(run_id="run_g"))
            changed = await service.post(run_request(run_id="run_g", notes="changed"))
            red = await service.post(red_request(run_id="run_r"))
            unnamed = run_request()
            del unnamed["run_id"], unnamed["created_at_utc"]
            named = await service.post(unnamed)
            ready = await service.http.get("/health/ready")
    assert (green.status_code, green.json()["status"]) == (200, "created")
    assert (green.json()["outcome"], green.json()["may_cut"]) == ("persisted", True)
    assert (again.status_code, again.json()["outcome"]) == (200, "duplicate")
    assert (changed.status_code, changed.json()["error"]) == (409, "RUN_CONFLICT")
    assert (red.status_code, red.json()["error"]) == (409, "SAFETY_BLOCKED")
    assert (red.json()["status"], red.json()["may_cut"]) == ("BLOCKED", False)
    assert named.json()["run_id"] in rows_at(v1_settings)
    assert ready.json()["checks"]["disk writable"] is True


class Load:
    """Publishes runs without a pause, until it is told to stop."""

    def __init__(self, settings: Settings) -> None:
        self.run_ids: list[str] = []
        self._settings = settings
        self._stop = asyncio.Event()

    async def run(self) -> None:
        while not self._stop.is_set():
            start = len(self.run_ids)
            batch = [f"run_{number}" for number in range(start, start + 20)]
            await produce(self._settings, [sending(run_request(run_id=name)) for name in batch])
            self.run_ids += batch

    async def more(self, count: int) -> None:
        wanted = len(self.run_ids) + count
        await wait_until(lambda: len(self.run_ids) >= wanted, f"{wanted} runs published")

    def stop(self) -> None:
        self._stop.set()


@pytest.mark.slow
async def test_from_v2_to_v1_and_back_under_load_no_run_is_lost(
    v1_settings: Settings, workers: WorkerPool
) -> None:
    settings, topics = v1_settings, v1_settings.topics
    v1_mode = {
        "RMOS_RUNS_V2_ENABLED": "no",
        "RMOS_RUN_STORE_PATH": str(settings.run_store_path),
    }
    short = {"RMOS_SESSION_TIMEOUT_MS": str(SHORT_SESSION_MS)}
    load = Load(settings)
    publishing = asyncio.create_task(load.run())
    v2 = workers.start(settings, **short)
    await v2.wait_until_started()
    await load.more(100)
    v2.kill()
    before = await group_at(settings, topics.persist_group)

    first = workers.start(settings, **v1_mode, **short)
    second = workers.start(settings, **v1_mode)
    await first.wait_until_started()
    await second.wait_until_started()
    await wait_until(lambda: len(rows_at(settings)) > 50, "rows are written")
    first.kill()
    await load.more(100)
    rows = len(rows_at(settings))
    await wait_until(lambda: len(rows_at(settings)) > rows + 50, "the other worker goes on")
    assert await second.stop(signal.SIGTERM) == 0
    assert await group_at(settings, topics.persist_group) == before

    back = workers.start(settings)
    await back.wait_until_started()
    await load.more(100)
    load.stop()
    await publishing
    await wait_until_consumed(settings, check=back.check)
    assert await back.stop() == 0

    made = {path.stem: path.read_bytes() for path in settings.data_dir.glob("runs/*/*.json")}
    assert made.keys() == set(load.run_ids)
    in_v1 = rows_at(settings)
    assert OLD.items() <= in_v1.items()
    assert len(in_v1) > 100
    for run_id in in_v1.keys() - OLD.keys():
        assert sha256(made[run_id]) == in_v1[run_id]["meta"][MARK]["artifact_sha256"]
    # Every record between where the store stopped and where the v1 group stands has its row.
    passed = await group_at(settings, topics.persist_v1_group)
    expected = {
        each.key.decode()
        for each in await read_topic(settings, topics.run_requests)
        if before.get((each.topic, each.partition), 0)
        <= each.offset
        < passed.get((each.topic, each.partition), 0)
    }
    assert len(expected) > 100
    assert expected <= in_v1.keys()
    # Whoever keeps the first event of each id has heard of every run, and cuts each once.
    events = told(await read_topic(settings, topics.run_events))
    assert {found[0].run_id for found in events.values()} == set(load.run_ids)
    assert len(events) == len(load.run_ids)
