"""Commands over a store of many hosts print what they print over one disk with the same records."""

import asyncio
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import select, text

pytest.importorskip("psycopg", reason="the extra scale is not installed")

import psycopg

from pipeline.errors import StoreNotReadyError
from pipeline.postgres.database import PostgresDatabase
from pipeline.postgres.scripts import run_scripts
from pipeline.recovery.rebuild.index import rebuild_index
from pipeline.settings import Settings
from pipeline.storage.advisory_store import AdvisoryStore
from pipeline.storage.attachments import AttachmentFiles
from pipeline.storage.index import tables
from pipeline.storage.index.queries import IndexTransaction
from pipeline.storage.run_store import RunStore
from pipeline.storage.store import create, init_key, open_to_read, open_to_write
from tests.bucket.buckets import shared_settings
from tests.bucket.servers import BUCKET, delete_key, point_at
from tests.builders import run_request
from tests.cli.command_line import NOBODY, CommandLine, Done, command_line
from tests.conftest import Servers
from tests.evidence.proven_stores import ADVISORIES, LINKED, REQUESTS, RUNS, UPLOADED, judged
from tests.ledger.ledgers import STORE_ID
from tests.postgres.servers import IDENTITY, with_tables

pytestmark = pytest.mark.slow
KINDS = ("disk", "shared")
CAME = [each for each in LINKED if each[1]["run_id"] != "never_came"]
"""What waits for its run has its row in no file and no leaf: only its record has it."""


def fill(settings: Settings, uploaded: Path) -> None:
    """Make a store with its key, runs, advisories and a blob that came beside the topic."""
    create(settings, cluster_id="cluster-1", store_id=STORE_ID)
    init_key(settings)
    for topic, kind, given in ((RUNS, RunStore, REQUESTS), (ADVISORIES, AdvisoryStore, CAME)):
        store, ledger = open_to_write(settings)
        with closing(kind(store, ledger=ledger)) as batches:
            batches.commit(judged(topic, given, 0))
            AttachmentFiles(store.files).put(uploaded)


@pytest.fixture(scope="module")
def stores(
    quick_server: str, servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Settings]:
    """Give the settings of a store on a disk and of one of many hosts, with the same records."""
    folder = tmp_path_factory.mktemp("stores")
    shared = shared_settings(folder, servers)
    disk = Settings(data_dir=folder / "store", ledger_key_file=shared.ledger_key_file)
    (folder / "uploaded").write_bytes(UPLOADED)
    with pytest.MonkeyPatch.context() as patch:
        point_at(patch, quick_server)
        for settings in (disk, shared):
            fill(settings, folder / "uploaded")
    return {"disk": disk, "shared": shared}


@pytest.fixture
def line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> Iterator[CommandLine]:
    """Give the command line over a folder that no test here asks for."""
    yield from command_line(tmp_path / "none", monkeypatch, capsysbinary)


@pytest.fixture
def rmos(
    stores: dict[str, Settings],
    quick_server: str,
    line: CommandLine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Done]:
    """Give what runs a command over one of the stores, in a folder of its own."""
    point_at(monkeypatch, quick_server)

    def run(kind: str, *words: str) -> Done:
        settings = stores[kind]
        for name in ("RMOS_DATA_DIR", "RMOS_STORE_URL", "RMOS_INDEX_URL"):
            monkeypatch.delenv(name, raising=False)
        if settings.index_url is None:
            line.set("RMOS_DATA_DIR", str(settings.data_dir))
        else:
            line.set("RMOS_STORE_URL", settings.store_url or "")
            line.set("RMOS_INDEX_URL", settings.index_url.get_secret_value())
        line.set("RMOS_LEDGER_KEY_FILE", str(settings.ledger_key_file))
        (tmp_path / kind).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / kind)
        return line(*words)

    return run


def same(rmos: Callable[..., Done], *words: str, status: int = 0) -> bytes:
    """Check that a command prints the same over both; return what."""
    on_disk, shared = (rmos(kind, *words) for kind in KINDS)
    assert (shared.status, shared.out) == (on_disk.status, on_disk.out), shared.err
    assert on_disk.status == status, on_disk.err
    assert on_disk.out or shared.err == on_disk.err
    return on_disk.out


def test_evidence_and_exports_are_the_same_bytes(rmos: Callable[..., Done], tmp_path: Path) -> None:
    trusted = tmp_path / "trusted"
    trusted.write_bytes(same(rmos, "ledger", "checkpoint"))
    for run_id in ("saw_1", "saw_red", "rosette_1"):
        words = ("evidence", run_id, "-o", f"{run_id}.zip", "--trusted", str(trusted), "--json")
        same(rmos, *words)
    same(rmos, "runs", "export", "--to", "all.zip", "--json")
    files = sorted(path.name for path in (tmp_path / "disk").iterdir())
    assert files == ["all.zip", "rosette_1.zip", "saw_1.zip", "saw_red.zip"]
    for name in files:
        on_disk, shared = ((tmp_path / kind / name).read_bytes() for kind in KINDS)
        assert shared == on_disk, name
    done = rmos("shared", "evidence", "none")
    assert (done.status, done.sentence) == (3, "RUN_NOT_FOUND: There is no run none.")


def test_sums_checkpoints_and_proofs_are_the_same(
    rmos: Callable[..., Done], tmp_path: Path
) -> None:
    same(rmos, "ledger", "checksums")
    same(rmos, "ledger", "checksums", "--root")
    same(rmos, "ledger", "checksums", "2025-12-19", "--json")
    same(rmos, "ledger", "prove", "saw_1", "--json")
    same(rmos, "ledger", "prove", "saw_1", "--advisory", "adv_1")
    note = same(rmos, "ledger", "checkpoint")
    (tmp_path / "trusted").write_bytes(note)
    verify = ("ledger", "verify", "--trusted", str(tmp_path / "trusted"), "--json")
    same(rmos, *verify)
    same(rmos, *verify[:-1])


def kept(settings: Settings) -> dict[str, list[Any]]:
    """Return every row of an index."""
    with closing(open_to_read(settings)) as store, store.index.reading() as connection:
        return {
            table.name: sorted(map(tuple, connection.execute(select(table))), key=repr)
            for table in tables.metadata.sorted_tables
            if table is not tables.reject_windows
        }


def change(settings: Settings, *statements: str) -> None:
    """Change an index behind the program's back."""
    store, _ = open_to_write(settings)
    with closing(store), store.index.transaction() as transaction:
        for statement in statements:
            transaction.connection.execute(text(statement))


DAMAGE = (
    "UPDATE runs SET tool_id = 'other' WHERE run_id = 'saw_1'",
    "UPDATE runs SET artifact_sha256 = 'none' WHERE run_id = 'rosette_1'",
    "DELETE FROM attachments WHERE run_id = 'router_1'",
    "DELETE FROM advisories WHERE run_id = 'saw_red'",
    "UPDATE positions SET next_offset = 1",
)
NOTED = (
    "INSERT INTO accepted_losses VALUES (1, 'rmos.runs.requests', 5, 17)",
    "INSERT INTO reported_claims VALUES (1, 'rmos.advisories.requests', 5, 18)",
    "INSERT INTO claims_in_hand VALUES (1, 'rmos.advisories.requests', 5, 19)",
    "INSERT INTO topic_ids VALUES (1, 'rmos.runs.requests', 'abc')",
)


def test_a_damaged_index_is_found_and_rebuilt_as_on_a_disk(
    rmos: Callable[..., Done], stores: dict[str, Settings]
) -> None:
    same(rmos, "index", "check", "--json")
    for settings in stores.values():
        change(settings, *NOTED)
    before = kept(stores["disk"])
    assert kept(stores["shared"]) == before
    for settings in stores.values():
        change(settings, *DAMAGE)
    found = json.loads(same(rmos, "index", "check", "--json", status=5))
    assert len(found["differences"]) == 4
    same(rmos, "index", "rebuild", "--json")
    assert kept(stores["shared"]) == kept(stores["disk"]) == before
    same(rmos, "index", "check")


def test_a_batch_waits_for_a_rebuild_and_readers_see_the_old_rows(
    stores: dict[str, Settings], quick_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_at(monkeypatch, quick_server)
    settings = stores["shared"].model_copy(update={"bootstrap_servers": NOBODY})
    records = judged(RUNS, [(0, run_request(run_id="saw_late"))], 5)
    before = kept(settings)
    begin = PostgresDatabase._replaced
    with ThreadPoolExecutor(1) as pool:
        batches: list[Future[Any]] = []

        @contextmanager
        def watched(*given: Any) -> Iterator[Any]:
            # The files and leaves are read by now.
            batches.append(pool.submit(commit, settings, records))
            wait_for_lock(settings)
            with begin(*given) as begun:
                yield begun
                # All rows but those of the last pipeline are there, and nobody sees them.
                assert kept(settings) == before
            assert not batches[0].done()

        monkeypatch.setattr(PostgresDatabase, "_replaced", watched)
        asyncio.run(rebuild_index(settings))
        # The batch goes on by now; beside a disk all rows are compared once it is done.
        assert [each.kind for each in batches[0].result(60).outcomes] == ["persisted"]
    commit(stores["disk"], records)
    assert kept(settings) == kept(stores["disk"]) != before


def test_a_rebuild_that_fails_leaves_the_old_rows_and_no_lock(
    stores: dict[str, Settings], quick_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_at(monkeypatch, quick_server)
    settings = stores["shared"].model_copy(update={"bootstrap_servers": NOBODY})
    before = kept(settings)

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(IndexTransaction, "advance", fail)
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(rebuild_index(settings))
    assert kept(settings) == before
    records = judged(RUNS, [(1, run_request(run_id="saw_after"))], 1)
    assert [each.kind for each in commit(settings, records).outcomes] == ["persisted"]
    commit(stores["disk"], records)


def test_a_database_that_was_lost_is_filled_again_and_that_of_another_store_is_not(
    stores: dict[str, Settings],
    quick_server: str,
    servers: Servers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    point_at(monkeypatch, quick_server)
    url = servers.get("18").new_database()
    settings = stores["shared"].model_copy(
        update={"index_url": SecretStr(url), "bootstrap_servers": NOBODY}
    )
    with pytest.raises(StoreNotReadyError, match="rmos store upgrade"):
        asyncio.run(rebuild_index(settings))
    run_scripts(url)
    asyncio.run(rebuild_index(settings))
    assert kept(settings)["runs"] == kept(stores["shared"])["runs"]
    other = with_tables(servers.get("18"), replace(IDENTITY, store_id="1" * 32))
    with pytest.raises(StoreNotReadyError, match=f"Expected .* store_id {STORE_ID}"):
        asyncio.run(rebuild_index(settings.model_copy(update={"index_url": SecretStr(other)})))


AWS = """#!/bin/sh
case "$2" in
list-object-versions)
    [ "${10}" = "[Versions,DeleteMarkers][] | [?Key=='$6'].[VersionId]" ] && echo v1 && echo v2 ;;
delete-object) echo "$6 $8" >> "$REMOVED" ;;
esac
"""
"""Stands for the program of the cloud: two versions of each object."""


def test_a_date_is_archived_removed_and_restored_as_on_a_disk(
    rmos: Callable[..., Done],
    stores: dict[str, Settings],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tar, removed = tmp_path / "old.tar", tmp_path / "removed"
    (tmp_path / "aws").write_text(AWS)
    (tmp_path / "aws").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("REMOVED", str(removed))
    before = same(rmos, "ledger", "checksums", "--json")
    made = {}
    for kind in KINDS:
        # Under the same name, which the record has.
        done = rmos(kind, "archive", "create", "2025-12-18", "--to", str(tar), "--json")
        assert done.status == 0, done.err
        made[kind] = done.document
        tar.rename(tmp_path / f"{kind}.tar")
    assert (tmp_path / "shared.tar").read_bytes() == (tmp_path / "disk.tar").read_bytes()
    (tmp_path / "shared.tar").rename(tar)
    for document in made.values():
        subprocess.run(["bash", "-ec", document.pop("removal")], check=True)
    assert made["shared"] == made["disk"]
    folder = str(stores["shared"].store_url).removeprefix(f"s3://{BUCKET}/")
    lines = removed.read_text().splitlines()
    assert [line.split()[1] for line in lines[:4]] == ["v1", "v2", "v1", "v2"]
    names = [line.split()[0].removeprefix(f"{folder}/") for line in lines[::2]]
    assert [name for name in names if (stores["disk"].data_dir / name).exists()] == []
    # What names an attachment goes before it.
    assert names == sorted(names, reverse=True)
    assert {name.partition("/")[0] for name in names} == {"runs", "attachments"}
    for name in names:
        delete_key(os.environ["AWS_ENDPOINT_URL"], f"{folder}/{name}")
    same(rmos, "archive", "verify", str(tar), "--json")
    same(rmos, "runs", "show", "saw_1", "--json", status=3)
    same(rmos, "ledger", "checksums")
    same(rmos, "index", "check", "--json")
    same(rmos, "archive", "restore", str(tar), "--json")
    assert same(rmos, "ledger", "checksums", "--json") == before


def commit(settings: Settings, records: list[Any]) -> Any:
    store, ledger = open_to_write(settings)
    with closing(RunStore(store, ledger=ledger)) as batches:
        return batches.commit(records)


def wait_for_lock(settings: Settings) -> None:
    """Wait until somebody waits for the lock of the store."""
    assert settings.index_url is not None
    with psycopg.connect(settings.index_url.get_secret_value(), autocommit=True) as connection:
        asked = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        while connection.execute(asked).fetchone() == (0,):
            time.sleep(0.01)


def test_a_store_and_a_blob_are_the_same_but_for_the_volume(
    rmos: Callable[..., Done], tmp_path: Path
) -> None:
    volume = {"free_bytes", "free_inodes", "group_commit"}
    on_disk, shared = (rmos(kind, "store", "status", "--json").document for kind in KINDS)
    assert shared == {name: each for name, each in on_disk.items() if name not in volume}
    assert volume <= on_disk.keys()
    (tmp_path / "program.nc").write_text("G1 X7")
    for created in (1, 0):
        put = same(rmos, "attachments", "put", str(tmp_path / "program.nc"), "--json")
        assert json.loads(put.splitlines()[-1])["summary"]["created"] == created


def test_the_doctor_asks_for_bucket_index_and_key(
    rmos: Callable[..., Done], line: CommandLine, tmp_path: Path
) -> None:
    found = rmos("shared", "doctor", "--json").document["answers"]
    states = {each["question"]: each["state"] for each in found}
    # No broker answers.
    looked_at = {name: states.pop(name) for name in ("files", "bucket", "store", "key", "api")}
    assert set(looked_at.values()) == {"fine"}
    asked = ["broker", "topics", "rights", "persist", "advisories", "audit", "metrics", "traces"]
    assert list(states) == asked
    assert {name for name, state in states.items() if state == "not usable"} == {"broker"}
    line.set("RMOS_STORE_URL", f"s3://{BUCKET}/none")
    there = {each["question"]: each for each in line("doctor", "--json").document["answers"]}
    for question in ("bucket", "store"):
        assert "There is no store at" in there[question]["sentence"]
    assert there["key"]["state"] == there["persist"]["state"] == "not asked"
