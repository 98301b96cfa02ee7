"""A store of another user: root refuses to write there, others are told what they may not."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.audit.journal import AuditJournal
from pipeline.disk.durable_files import DurableFiles
from pipeline.disk.owner import refuse_as_root
from pipeline.disk.store_identity import begin_epoch, create_store
from pipeline.disk.volume import is_disk_writable
from pipeline.errors import StoreError, StoreNotReadyError
from pipeline.legacy.v1.file import V1Store
from pipeline.storage.attachments import AttachmentFiles
from pipeline.storage.index.run_index import open_index_to_read
from pipeline.storage.reader import open_reader
from pipeline.storage.run_store import RunStore
from pipeline.storage.store import open_store_to_write
from tests.builders import run_request
from tests.storage.stores import files, in_child, judged_record, make_store, opened

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")

USER = 54_321


@pytest.fixture
def root() -> Iterator[Path]:
    """Return a store that any user can get to."""
    folder = Path(tempfile.mkdtemp(prefix="rmos-owner-"))
    folder.chmod(0o755)
    store = folder / "store"
    store.mkdir()
    make_store(store)
    with opened(store) as runs:
        runs.commit([judged_record(run_request(run_id="run_0"))])
    yield store
    shutil.rmtree(folder)


def give(root: Path, user: int = USER) -> None:
    """Give a folder and all below to a user."""
    for path in [root, *root.rglob("*")]:
        os.chown(path, user, user)


def as_user(work: Callable[[], str]) -> str:
    """Return what `work` says as another user."""

    def do() -> bytes:
        os.setgroups([])
        os.setgid(USER)
        os.setuid(USER)
        return work().encode()

    status, said = in_child(do)
    assert status == 0
    return said.decode()


WRITERS: dict[str, Callable[[Path], object]] = {
    "store": lambda root: RunStore(open_store_to_write(root)),
    "upload": lambda root: AttachmentFiles(DurableFiles.untried(root)).begin(),
    "epoch": lambda root: begin_epoch(root, cluster_id="cluster-2"),
    "audit": lambda root: AuditJournal.take(root, "audit_1"),
}


@pytest.mark.parametrize("write", WRITERS)
def test_root_writes_nothing_into_the_store_of_another_user(root: Path, write: str) -> None:
    give(root)
    before = files(root)
    with pytest.raises(StoreNotReadyError, match=f"belongs to user {USER}, .*run this as that"):
        WRITERS[write](root)
    assert files(root) == before
    assert {path.stat().st_uid for path in root.rglob("*")} == {USER}


def test_root_makes_no_store_in_the_folder_of_another_user(tmp_path: Path) -> None:
    os.chown(tmp_path, USER, USER)
    with pytest.raises(StoreNotReadyError, match=f"belongs to user {USER}"):
        create_store(tmp_path, cluster_id="cluster-1", prefix="rmos")
    assert list(tmp_path.iterdir()) == []


def test_root_reads_the_store_of_another_user_and_leaves_nothing(root: Path) -> None:
    give(root)
    reader = open_reader(root)
    assert reader.find("run_0").run.run_id == "run_0"
    reader.close()
    open_index_to_read(root).close()
    assert {path.stat().st_uid for path in root.rglob("*")} == {USER}


def test_its_owner_and_root_in_a_store_of_its_own_go_on(root: Path) -> None:
    refuse_as_root(root)
    give(root)
    assert as_user(lambda: str(refuse_as_root(root))) == "None"


def fault_of(root: Path) -> str:
    """Return what a worker of another user says of a new run, and whether the disk is ready."""
    ready = is_disk_writable(root)
    try:
        with opened(root) as store:
            new = run_request(run_id="run_2", created_at_utc="2025-12-19T00:00:00Z")
            store.commit([judged_record(run_request(run_id="run_1"), 1), judged_record(new, 2)])
    except StoreError as error:
        return f"{error.exit_status} {ready} {error}"
    return f"stored {ready}"


def test_the_owner_stores(root: Path) -> None:
    give(root)
    assert as_user(lambda: fault_of(root)) == "stored True"


@pytest.mark.parametrize(
    ("closed", "ready"),
    [
        ("runs/2025-12-18", True),
        ("runs", False),
        ("index.sqlite3", False),
        ("index.lock", True),
        (".", False),
    ],
)
def test_what_a_worker_may_not_write_is_a_sentence(root: Path, closed: str, ready: bool) -> None:
    give(root)
    os.chown(root / closed, 0, 0)
    said = as_user(lambda: fault_of(root))
    assert said.startswith(f"6 {ready} The store {root} cannot be used: Permission denied")
    assert "give this user the rights to write there: a command that was run as another" in said


def test_a_v1_store_that_root_writes_keeps_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "runs.json"
    path.write_text("{}")
    os.chown(path, USER, USER)
    with V1Store(path).transaction() as transaction:
        transaction.add("run_1", {"run_id": "run_1"})
    assert (path.stat().st_uid, path.stat().st_gid) == (USER, USER)
