"""Back to a v1 store and forth again on the real broker: no run is lost, nothing is deleted."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.app.persist import persist_worker
from pipeline.broker.admin.groups import committed_offsets
from pipeline.broker.publisher import RunPublisher
from pipeline.core.progress import no_progress
from pipeline.errors import IntegrityError, NotFoundError, RefusedError
from pipeline.legacy.rollback import RollbackReport, roll_back
from pipeline.legacy.v1.row import MARK
from pipeline.settings import Settings
from tests.builders import red_request, run_request
from tests.e2e.kafka_reading import produce, read_topic, sending, wait_until, wait_until_consumed
from tests.e2e.migrations import differences, migrate, rmos_migrate
from tests.e2e.store_audit import store_files
from tests.legacy_rows import V1_NAMES, bare_row, unknown_row, v1_file, v1_row

pytestmark = [pytest.mark.e2e, pytest.mark.every_topic]


@pytest.fixture
def v1(tmp_path: Path) -> Path:
    path = tmp_path / "old" / "runs.json"
    path.parent.mkdir()
    path.write_bytes(v1_file(v1_row(), unknown_row(), bare_row()))
    return path


@pytest.fixture
def settings_(store_settings: Settings, v1: Path) -> Settings:
    """Give settings with store and topics, and with the v1 file."""
    return store_settings.model_copy(update={"run_store_path": v1, "judge_in_child_process": False})


def rows_of(path: Path) -> dict[str, Any]:
    rows: dict[str, Any] = json.loads(path.read_bytes())
    return rows


def content(path: Path) -> bytes:
    return path.read_bytes()


def replace(path: Path, new: bytes) -> None:
    path.chmod(0o600)
    path.write_bytes(new)


async def back(settings: Settings, **options: Any) -> RollbackReport:
    path = settings.run_store_path
    given = {"backup": None, "backup_dir": None} | options
    return await roll_back(settings, path, progress=no_progress, **given)


async def test_a_damaged_v1_file_is_restored_byte_for_byte(settings_: Settings, v1: Path) -> None:
    before = content(v1)
    await migrate(settings_, v1)
    files = store_files(settings_.data_dir)
    replace(v1, b"damaged")
    report = await back(settings_)
    assert (report.rows, report.from_backup, report.exported) == (3, 3, 0)
    assert report.file_fault is not None
    assert "cannot be read" in report.file_fault
    assert content(v1) == before
    assert report.replaced is not None
    assert content(report.replaced) == b"damaged"
    assert store_files(settings_.data_dir) == files
    again = await back(settings_)
    assert (again.replaced, again.file_fault) == (None, None)
    assert content(v1) == before


async def test_runs_made_since_become_rows_that_v1_can_read(settings_: Settings, v1: Path) -> None:
    await migrate(settings_, v1)
    requests = [run_request(run_id="run_new"), red_request(run_id="run_red")]
    await produce(settings_, map(sending, requests))
    async with persist_worker(settings_):
        await wait_until_consumed(settings_)
    late = v1_row(run_id="run_late")
    replace(v1, v1_file(v1_row(notes="patched"), unknown_row(), late))
    done = rmos_migrate(settings_, "rollback", "--to", v1)
    assert done.status == 0, done.err
    (told,) = done.documents
    assert (told["from_backup"], told["from_file"], told["exported"]) == (3, 1, 2)
    rows = rows_of(v1)
    assert rows[v1_row()["run_id"]] == v1_row()
    assert rows["run_late"] == late
    assert all(set(row) == set(V1_NAMES) for row in rows.values())
    assert (rows["run_new"]["status"], rows["run_red"]["status"]) == ("OK", "BLOCKED")
    assert rows["run_new"]["decision"]["risk_level"] == "GREEN"
    # Back again the rows of ours are known as such, and the late one is carried over.
    again = await migrate(settings_, v1)
    assert again.states["run_new"] == again.states["run_red"] == "ours"
    assert again.states["run_late"] == "published"
    assert again.result.is_complete
    assert differences(settings_, v1) == []


async def test_rows_of_another_older_store_get_their_old_values_back(
    settings_: Settings, v1: Path, tmp_path: Path
) -> None:
    advisory = {"advisory_id": "adv_1", "kind": "note", "created_at_utc": ""}
    other = tmp_path / "other.json"
    row = v1_row(run_id="run_other", fork_reason="post", advisory_inputs=[advisory], meta={"a": 1})
    replace_new(other, v1_file(row))
    await migrate(settings_, v1)
    await migrate(settings_, other)
    await back(settings_)
    exported = rows_of(v1)["run_other"]
    for name in ("request_hash", "toolpaths_hash", "fork_reason", "feasibility", "status"):
        assert exported[name] == row[name]
    assert exported["advisory_inputs"][0]["advisory_id"] == "adv_1"
    assert exported["meta"].keys() == {"a", MARK}
    assert (await migrate(settings_, v1)).states["run_other"] == "ours"


def replace_new(path: Path, new: bytes) -> None:
    path.write_bytes(new)


async def test_a_backup_that_was_changed_is_refused_and_nothing_is_touched(
    settings_: Settings, v1: Path
) -> None:
    done = await migrate(settings_, v1)
    backup = done.result.backup
    assert backup is not None
    replace(backup, content(backup).replace(b"OK", b"ok", 1))
    before = content(v1)
    with pytest.raises(IntegrityError, match="Expected the backup"):
        await back(settings_)
    assert content(v1) == before
    assert rmos_migrate(settings_, "rollback", "--to", v1).status == 5


async def test_without_a_backup_there_is_nothing_to_go_back_to(settings_: Settings) -> None:
    with pytest.raises(NotFoundError, match="no backup"):
        await back(settings_)
    done = rmos_migrate(settings_, "rollback", "--to", settings_.run_store_path)
    assert done.status == 3


async def test_a_store_that_never_had_a_v1_file_can_make_one(
    settings_: Settings, v1: Path, tmp_path: Path
) -> None:
    await migrate(settings_, v1)
    path = tmp_path / "fresh.json"
    done = rmos_migrate(settings_, "rollback", "--to", path, "--without-backup")
    assert done.status == 0, done.err
    (told,) = done.documents
    assert (told["backup"], told["from_backup"], told["exported"]) == (None, 0, 3)
    rows = rows_of(path)
    assert rows.keys() == rows_of(v1).keys()
    assert all(set(row) == set(V1_NAMES) for row in rows.values())
    assert set((await migrate(settings_, path)).states.values()) == {"ours"}


async def test_while_a_worker_runs_nobody_goes_back(settings_: Settings, v1: Path) -> None:
    await migrate(settings_, v1)
    async with persist_worker(settings_):
        with pytest.raises(RefusedError, match="Stop the workers"):
            await back(settings_)


async def test_a_run_whose_file_is_damaged_is_reported_and_the_others_are_exported(
    settings_: Settings, v1: Path
) -> None:
    await migrate(settings_, v1)
    runs = [run_request(run_id=f"run_{number}") for number in range(3)]
    await produce(settings_, map(sending, runs))
    async with persist_worker(settings_):
        await wait_until_consumed(settings_)
    replace(next(settings_.data_dir.glob("runs/*/run_1.json")), b"{}")
    done = rmos_migrate(settings_, "rollback", "--to", v1)
    assert done.status == 5
    assert done.documents[0]["failed"] == ["run_1"]
    assert {"run_0", "run_2"} <= rows_of(v1).keys()


def stored_in(settings: Settings) -> int:
    return len(list(settings.data_dir.glob("runs/*/*.json")))


@asynccontextmanager
async def load(settings: Settings, sent: list[str]) -> AsyncIterator[None]:
    """Publish runs without a pause for the length of a block."""

    stop = asyncio.Event()

    async def publish() -> None:
        async with RunPublisher(settings) as publisher:
            while not stop.is_set():
                run_id = f"run_load_{len(sent):05}"
                await publisher.publish(run_request(run_id=run_id))
                sent.append(run_id)

    task = asyncio.create_task(publish())
    try:
        yield
    finally:
        stop.set()
        await task


@pytest.mark.slow
async def test_back_to_v1_and_forth_again_under_load_loses_no_run(
    settings_: Settings, v1: Path
) -> None:
    await migrate(settings_, v1)
    sent: list[str] = []

    async def more(than: int) -> None:
        await wait_until(lambda: len(sent) >= than, f"{than} runs sent")

    async with load(settings_, sent):
        async with persist_worker(settings_):
            await wait_until(lambda: stored_in(settings_) >= 200, "200 runs stored")
        report = await back(settings_)
        await more(len(sent) + 100)
        async with persist_worker(settings_.model_copy(update={"runs_v2_enabled": False})):
            await wait_until(lambda: len(rows_of(v1)) >= report.rows + 200, "200 rows more")
        await more(len(sent) + 100)
        in_v1 = rows_of(v1)
        async with persist_worker(settings_):
            await more(len(sent) + 100)
    assert report.exported > 0
    async with persist_worker(settings_):
        await wait_until_consumed(settings_)
    stored = {path.stem for path in settings_.data_dir.glob("runs/*/run_*.json")}
    assert stored == {*sent, *rows_of(v1), *(row["run_id"] for row in (v1_row(), bare_row()))}
    # While v1 ruled, no run between the first and its last was missing in its file.
    group = settings_.topics.persist_v1_group
    topic = settings_.topics.run_requests
    ends = await committed_offsets(settings_, group, [topic])
    ruled = {
        json.loads(record.value)["run_id"]
        for record in await read_topic(settings_, topic)
        if record.offset < ends.get((topic, record.partition), 0)
    }
    assert ruled <= in_v1.keys()
    assert len(ruled) >= 200
    assert (await migrate(settings_, v1)).result.is_complete
    assert differences(settings_, v1) == []
