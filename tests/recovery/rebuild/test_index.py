"""Where the ledger tells everything an index is made again from the disk alone, row for row."""

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pipeline.archive.create import create_archive
from pipeline.archive.restore import restore_archive
from pipeline.core.advisories.verdict import judge_advisory_record
from pipeline.core.progress import no_progress
from pipeline.core.record import RecordId, RecordSource
from pipeline.disk.contents import disk_contents
from pipeline.disk.store_identity import begin_epoch, create_store, read_store
from pipeline.errors import BrokerError, IntegrityError
from pipeline.ledger.reader import StoreLogs
from pipeline.recovery.rebuild.index import rebuild_index, take_archives
from pipeline.recovery.rebuild.rows import RebuiltRows
from pipeline.settings import Settings
from pipeline.storage.advisory_store import AdvisoryRecord, AdvisoryStore
from pipeline.storage.archives import Archives
from pipeline.storage.ledger_key import init_ledger_key, open_ledger, verifier_keys
from pipeline.storage.run_store import RunRecord, RunStore
from pipeline.storage.store import open_store_to_write
from tests.archive.archived import remove
from tests.builders import advisory_request, record, red_request, run_request, sha256
from tests.ledger.ledgers import damage
from tests.storage.stores import (
    TIMESTAMP_MS,
    JudgedRecord,
    change_index,
    index_at,
    judged_record,
    rows,
    tombstone,
)

NOBODY = "127.0.0.1:1"
ADVISORIES = "rmos.advisories.requests"
FOLDER = Path("runs/2025-12-18")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Give a store with a key, and no broker."""
    found = Settings(
        data_dir=tmp_path / "store",
        ledger_key_file=tmp_path / "ledger.pem",
        bootstrap_servers=NOBODY,
    )
    create_store(found.data_dir, cluster_id="cluster-1", prefix="rmos")
    init_ledger_key(found)
    return found


def commit_runs(settings: Settings, records: list[RunRecord]) -> None:
    store = RunStore(open_store_to_write(settings.data_dir), ledger=open_ledger(settings))
    store.commit(records)
    store.close()


def commit_advisories(settings: Settings, *requests: dict[str, Any], offset: int = 0) -> None:
    store = AdvisoryStore(open_store_to_write(settings.data_dir), ledger=open_ledger(settings))
    store.commit([advisory(request, n) for n, request in enumerate(requests, start=offset)])
    store.close()


def advisory(request: dict[str, Any], offset: int) -> AdvisoryRecord:
    key, value = record(request)
    source = RecordSource(1, RecordId(ADVISORIES, 3, offset))
    return JudgedRecord.of(source, judge_advisory_record(key, value), value, TIMESTAMP_MS)


def fill(settings: Settings) -> None:
    """Store runs of every kind in two partitions, and advisories that are linked."""
    runs = [run_request(run_id=f"run_{n}") for n in range(4)]
    commit_runs(
        settings,
        [
            *(judged_record(run, n) for n, run in enumerate(runs)),
            judged_record(runs[1], 4),
            judged_record(runs[2] | {"notes": "changed"}, 5),
            tombstone(6),
            judged_record(red_request(run_id="run_red"), 0, partition=1),
        ],
    )
    commit_advisories(
        settings,
        advisory_request(run_id="run_0", advisory_id="a", content_text="why"),
        advisory_request(run_id="run_0", advisory_id="a", content_text="why"),
        advisory_request(run_id="run_0", advisory_id="b"),
        advisory_request(run_id="run_0", advisory_id="b", kind="note"),
    )


def lose_index(settings: Settings) -> dict[str, Any]:
    """Remove the index; return what was in it."""
    before = rows(settings.data_dir)
    for path in settings.data_dir.glob("index.sqlite3*"):
        path.unlink()
    return before


async def test_a_lost_index_is_made_again_row_for_row_without_a_broker(settings: Settings) -> None:
    fill(settings)
    before = lose_index(settings)
    report = await rebuild_index(settings)
    assert (report.runs, report.advisories, report.is_clean) == (5, 2, True)
    assert report.without_record == report.links_without_record == report.lost == []
    assert rows(settings.data_dir) == before


async def test_what_the_operator_gave_up_is_carried_over_from_an_index_of_another_format(
    settings: Settings,
) -> None:
    fill(settings)
    root = settings.data_dir
    change_index(root, "INSERT INTO accepted_losses VALUES (1, 'rmos.runs.requests', 3, 9)")
    change_index(root, "PRAGMA user_version=3")
    await rebuild_index(settings)
    with closing(index_at(root / "index.sqlite3")) as index:
        assert index.accepted_losses(1) == {("rmos.runs.requests", 3): 9}


async def test_claims_whose_event_was_not_confirmed_are_carried_over(settings: Settings) -> None:
    fill(settings)
    root = settings.data_dir
    place = (settings.topics.advisory_requests, 3)
    with closing(AdvisoryStore(open_store_to_write(root))) as store:
        store.claims.take(place, [4, 9])
    await rebuild_index(settings)
    with closing(AdvisoryStore(open_store_to_write(root))) as store:
        assert store.claims.in_hand(place) == [4, 9]


async def test_a_run_of_an_earlier_epoch_keeps_its_source(settings: Settings) -> None:
    fill(settings)
    begin_epoch(settings.data_dir, cluster_id="cluster-2")
    again = [judged_record(run_request(run_id=f"run_{n}"), n, epoch=2) for n in range(3)]
    new = judged_record(run_request(run_id="run_new"), 3, epoch=2)
    commit_runs(settings, [*again, new])
    before = lose_index(settings)
    report = await rebuild_index(settings)
    assert report.is_clean
    assert rows(settings.data_dir) == before
    sources = {row["run_id"]: row["source_epoch"] for row in rows(settings.data_dir)["runs"]}
    assert sources == dict.fromkeys(["run_0", "run_1", "run_2", "run_3", "run_red"], 1) | {
        "run_new": 2
    }


def change_artifact(folder: Path) -> Path:
    path = folder / "run_1.json"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b'"GREEN"', b'"GREEM"', 1))
    return path


def rewrite_artifact(folder: Path) -> Path:
    path = folder / "run_1.json"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b"saw:", b"SAW:", 1))
    return path


def spoil_artifact(folder: Path) -> Path:
    path = folder / "run_1.json"
    damage(path, 0)
    return path


def empty_artifact(folder: Path) -> Path:
    path = folder / "run_1.json"
    path.chmod(0o644)
    path.write_bytes(b"")
    return path


def put_another_run_there(folder: Path) -> Path:
    path = folder / "run_1.json"
    path.chmod(0o644)
    path.write_bytes((folder / "run_2.json").read_bytes())
    return path


def change_link(folder: Path) -> Path:
    path = folder / "run_0_advisory_b.json"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b"Why", b"How"))
    return path


def spoil_link(folder: Path) -> Path:
    path = folder / "run_0_advisory_b.json"
    damage(path, 0)
    return path


@pytest.mark.parametrize(
    "change",
    [
        change_artifact,
        rewrite_artifact,
        spoil_artifact,
        empty_artifact,
        put_another_run_there,
        change_link,
        spoil_link,
    ],
)
async def test_a_file_that_its_leaf_knows_otherwise_is_not_whitewashed(
    settings: Settings, change: Callable[[Path], Path]
) -> None:
    fill(settings)
    folder = settings.data_dir / FOLDER
    kept = {path.name: sha256(path.read_bytes()) for path in folder.iterdir()}
    before = lose_index(settings)
    path = change(folder)
    with pytest.raises(IntegrityError) as caught:
        await rebuild_index(settings)
    assert caught.value.exit_status == 5
    assert str(caught.value).startswith(
        f"Nothing was replaced: expected {FOLDER}/{path.name} to have SHA-256 {kept[path.name]}, "
        "as the leaf of offset "
    )
    assert f", found {sha256(path.read_bytes())}; put back a copy of it" in str(caught.value)
    assert list(settings.data_dir.glob("index.sqlite3*")) == []
    assert before["runs"]


async def test_an_index_that_is_there_stays_where_a_file_differs(settings: Settings) -> None:
    fill(settings)
    change_link(settings.data_dir / FOLDER)
    change_artifact(settings.data_dir / FOLDER)
    before = (settings.data_dir / "index.sqlite3").read_bytes()
    with pytest.raises(IntegrityError, match="; and 1 more; put back"):
        await rebuild_index(settings)
    assert (settings.data_dir / "index.sqlite3").read_bytes() == before


async def test_a_log_that_is_not_what_was_written_ends_it(settings: Settings) -> None:
    fill(settings)
    lose_index(settings)
    (path,) = (settings.data_dir / f"ledger/1/{ADVISORIES}-3/tile/entries/000.p").iterdir()
    damage(path)
    with pytest.raises(IntegrityError, match="is not as it was written"):
        await rebuild_index(settings)
    assert list(settings.data_dir.glob("index.sqlite3*")) == []


def lose_artifact(settings: Settings) -> None:
    (settings.data_dir / FOLDER / "run_1.json").unlink()


def lose_link(settings: Settings) -> None:
    (settings.data_dir / FOLDER / "run_0_advisory_b.json").unlink()


def wait_for_run(settings: Settings) -> None:
    commit_advisories(settings, advisory_request(run_id="run_later"), offset=4)


def slip_in(settings: Settings) -> None:
    """Make the files of a batch that died before its leaves."""
    other = settings.data_dir.with_name("other")
    create_store(other, cluster_id="cluster-1", prefix="rmos")
    store = RunStore(open_store_to_write(other))
    store.commit([judged_record(run_request(run_id="run_x"), 7)])
    store.close()
    shutil.copy(other / FOLDER / "run_x.json", settings.data_dir / FOLDER / "run_x.json")


@pytest.mark.parametrize("change", [lose_artifact, lose_link, wait_for_run, slip_in])
async def test_what_only_the_topic_reports_needs_a_broker(
    settings: Settings, change: Callable[[Settings], None]
) -> None:
    fill(settings)
    change(settings)
    lose_index(settings)
    with pytest.raises(BrokerError, match=r"No Kafka broker answers .* It is needed for"):
        await rebuild_index(settings)
    assert list(settings.data_dir.glob("index.sqlite3*")) == []


async def test_without_a_ledger_only_the_topics_show(settings: Settings) -> None:
    without = settings.model_copy(update={"ledger_enabled": False})
    store = RunStore(open_store_to_write(without.data_dir))
    store.commit([judged_record(run_request(run_id="run_0"), 0)])
    store.close()
    for each in (without, settings):
        with pytest.raises(BrokerError, match=r"Without a ledger only the topics show"):
            await rebuild_index(each)


async def test_what_is_archived_is_restored_before_a_rebuild(
    settings: Settings, tmp_path: Path
) -> None:
    # No broker has the records: nothing here has the rest of the rows.
    root, tar = settings.data_dir, tmp_path / "old.tar"
    fill(settings)
    before = rows(root)
    keys = verifier_keys(settings, read_store(root))
    logs = StoreLogs(disk_contents(root), keys)
    remove(create_archive(settings, logs, ["2025-12-18"], tar, no_progress))
    lost = RebuiltRows(disk_contents(root).files)
    lost.take_files(no_progress)
    lost.take_leaves(StoreLogs(disk_contents(root), keys), no_progress)
    with pytest.raises(IntegrityError, match="Nothing was replaced: 5 runs and advisories"):
        take_archives(Archives(disk_contents(root)), lost)
    restore_archive(tar, StoreLogs(disk_contents(root), keys), no_progress)
    lose_index(settings)
    report = await rebuild_index(settings)
    assert report.is_clean
    assert rows(root) == before


async def test_archived_rows_are_made_of_their_records_with_the_links_that_were_made(
    settings: Settings, tmp_path: Path
) -> None:
    root, tar = settings.data_dir, tmp_path / "old.tar"
    run = judged_record(run_request(run_id="run_0"), 0)
    claim = advisory(advisory_request(run_id="run_0", advisory_id="a"), 0)
    commit_runs(settings, [run])
    commit_advisories(settings, advisory_request(run_id="run_0", advisory_id="a"))
    keys = verifier_keys(settings, read_store(root))
    logs = StoreLogs(disk_contents(root), keys)
    remove(create_archive(settings, logs, ["2025-12-18"], tar, no_progress))
    rebuilt = RebuiltRows(disk_contents(root).files)
    rebuilt.take_files(no_progress)
    rebuilt.take_leaves(StoreLogs(disk_contents(root), keys), no_progress)
    for each in (run, claim):
        rebuilt.take_record(each.source, each.verdict)
    assert rebuilt.runs.without_file() == ["run_0"]
    assert take_archives(Archives(disk_contents(root)), rebuilt) == 2
    assert rebuilt.runs.without_file() == []
    assert list(rebuilt.advisories.to_be_linked(rebuilt.runs.paths())) == []
