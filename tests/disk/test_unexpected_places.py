"""Pipes, devices, links and huge files in a store: every reader goes on, none follows or waits."""

import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import pytest

from pipeline.audit.journal import AuditJournal, journal_progress, read_report, seal_journal
from pipeline.audit.single_files import check_file
from pipeline.core.layout import attachment_path
from pipeline.core.progress import no_progress
from pipeline.disk.contents import disk_contents
from pipeline.disk.durable_files import DurableFiles
from pipeline.disk.store_identity import read_store
from pipeline.disk.stored_files import StoredFiles
from pipeline.errors import (
    InputError,
    IntegrityError,
    NotFoundError,
    StoreError,
    StoreNotReadyError,
)
from pipeline.ledger.reader import StoreLogs
from pipeline.recovery.rebuild.rows import RebuiltRows
from pipeline.recovery.replay.files import FileChecks, find_foreign_files
from pipeline.storage.artifacts import UnexpectedFile, find_run_files
from pipeline.storage.attachments import AttachmentFiles
from pipeline.storage.index.replacement import accepted_losses_of
from pipeline.storage.index_check import check_index
from pipeline.storage.reader import open_reader
from tests.audit.audited import DRAWING, LINK, LOG, RUN, audit
from tests.builders import sha256
from tests.ledger.ledgers import KEYS, in_child
from tests.storage.stores import opened

BLOB = attachment_path(sha256(DRAWING))
DOCUMENTS = (
    RUN,
    LINK,
    "store.json",
    f"{LOG}/checkpoint",
    f"{LOG}/tile/entries/000.p/11",
    f"{LOG}/tile/0/000.p/11",
    "audits/audit_0.json",
    "index.sqlite3",
)
FILES = (*DOCUMENTS, BLOB, "audits/audit_0.ndjson", "index.lock")
FOLDERS = ("runs/2025-12-18", "runs", BLOB.rpartition("/")[0], "attachments", "audits", LOG)
SPARE_BYTES = 512 << 20


def make_link_without_end(path: Path) -> None:
    path.symlink_to("/dev/zero")


def make_huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 38)


def put(path: Path, make: Callable[[Path], None]) -> None:
    """Put something else in the place of a file or folder."""
    path.parent.mkdir(exist_ok=True)
    if path.is_dir():
        path.rename(path.with_name("moved_away"))
    path.unlink(missing_ok=True)
    make(path)


def readers(root: Path) -> Iterator[Callable[[], object]]:
    yield partial(read_store, root)
    yield lambda: open_reader(root).find("run_0")
    yield lambda: open_reader(root).advisories("run_0")
    yield lambda: open_reader(root).verify_attachments("run_drawing")
    yield lambda: list(find_run_files(StoredFiles(root)))
    yield lambda: [list(log.entries()) for log in StoreLogs(disk_contents(root), KEYS).open_all()]
    yield partial(audit, root)
    yield partial(read_report, StoredFiles(root), "audit_0")
    yield partial(journal_progress, root, "audit_0")
    yield partial(seal_journal, root, "audit_0")
    yield partial(AuditJournal.take, root, "audit_0")
    yield partial(check_file, root / RUN)
    yield lambda: AttachmentFiles(DurableFiles.untried(root)).check(sha256(DRAWING))
    yield partial(accepted_losses_of, root)
    yield partial(_rebuild, root)
    yield partial(_check, root)


def _rebuild(root: Path) -> None:
    rows = RebuiltRows(StoredFiles(root))
    rows.take_files(no_progress)
    rows.take_leaves(StoreLogs(disk_contents(root), KEYS), no_progress)
    rows.refuse_differing()


def _check(root: Path) -> None:
    with opened(root) as store:
        list(check_index(store.store, store.index))
        checks = FileChecks(store.store.files)
        logs = StoreLogs(disk_contents(root), KEYS)
        list(find_foreign_files(store.store, checks, logs, lambda source: False))


def is_locked_by_us(path: Path) -> bool:
    """Tell whether this process has a lock on a file, as SQLite takes them."""
    held = (line.split() for line in Path("/proc/locks").read_text().splitlines())
    ours = (os.getpid(), path.stat().st_ino)
    return any(
        words[1] == "POSIX" and (int(words[4]), int(words[5].rpartition(":")[2])) == ours
        for words in held
    )


def read_all_ways(root: Path) -> None:
    """Read the store in every way that we have, with little memory and time."""
    signal.alarm(60)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + SPARE_BYTES, used + SPARE_BYTES))
    for read in readers(root):
        with suppress(InputError, IntegrityError, NotFoundError, StoreError, StoreNotReadyError):
            read()


def test_no_reader_lets_go_of_the_locks_of_a_writer_in_its_process(store: Path) -> None:
    """Closing a file ends all locks that the process has on it, those of SQLite too.

    Another process would then take itself for the last one, and delete what the writer goes on
    to write into: rows that nobody sees, and that are gone after a restart.
    """
    index = store / "index.sqlite3"
    for read in readers(store):
        with opened(store) as writing:
            assert writing.index.count() > 0
            with suppress(InputError, NotFoundError, StoreError):
                read()
            assert is_locked_by_us(index), read


@pytest.mark.parametrize("place", FILES)
@pytest.mark.parametrize("make", [os.mkfifo, make_link_without_end])
def test_no_reader_waits_for_or_follows_what_is_no_file(
    store: Path, place: str, make: Callable[[Path], None]
) -> None:
    put(store / place, make)
    assert in_child(lambda: read_all_ways(store)) == 0


@pytest.mark.parametrize("place", DOCUMENTS)
def test_no_reader_reads_more_than_a_document_has(store: Path, place: str) -> None:
    put(store / place, make_huge)
    assert in_child(lambda: read_all_ways(store)) == 0


@pytest.mark.parametrize("place", FOLDERS)
def test_no_reader_follows_a_link_in_the_place_of_a_folder(store: Path, place: str) -> None:
    put(store / place, lambda path: path.symlink_to("moved_away"))
    assert in_child(lambda: read_all_ways(store)) == 0


@pytest.mark.parametrize(
    ("make", "what"),
    [(os.mkfifo, "a pipe"), (make_link_without_end, "a symbolic link"), (Path.mkdir, "a folder")],
)
def test_what_is_in_the_place_of_an_artifact_is_named(
    store: Path, make: Callable[[Path], None], what: str
) -> None:
    put(store / RUN, make)
    with closing(open_reader(store)) as reader, pytest.raises(IntegrityError, match=what):
        reader.find("run_0")
    with opened(store) as writer:
        (difference,) = check_index(writer.store, writer.index)
    assert (difference.path, what in difference.found) == (RUN, True)
    assert {(each.code, each.path, each.found) for each in audit(store).findings} == {
        ("FILE_UNREADABLE", RUN, what)
    }
    rows = RebuiltRows(StoredFiles(store))
    rows.take_files(no_progress)
    rows.take_leaves(StoreLogs(disk_contents(store), KEYS), no_progress)
    with pytest.raises(IntegrityError, match=f"found {what}"):
        rows.refuse_differing()


def test_a_file_larger_than_its_row_is_not_read(store: Path) -> None:
    size = (store / RUN).stat().st_size
    put(store / RUN, make_huge)
    expected = f"a file of {1 << 38:,} bytes, more than {size:,}"
    with closing(open_reader(store)) as reader, pytest.raises(IntegrityError, match=expected):
        reader.find("run_0")


def test_runs_in_a_folder_that_is_a_link_are_not_those_of_the_store(store: Path) -> None:
    put(store / "runs/2025-12-18", lambda path: path.symlink_to("moved_away"))
    (store / "runs/moved_away").rename(store / "elsewhere")
    with (
        closing(open_reader(store)) as reader,
        pytest.raises(IntegrityError, match="symbolic link"),
    ):
        reader.find("run_0")
    found = [
        each for each in find_run_files(StoredFiles(store)) if isinstance(each, UnexpectedFile)
    ]
    assert [each.path for each in found] == ["runs/2025-12-18"]
    with opened(store) as writer:
        differences = {each.path for each in check_index(writer.store, writer.index)}
    assert {"runs/2025-12-18", RUN, LINK} <= differences


def test_a_log_whose_folder_is_a_link_has_no_checkpoint(store: Path) -> None:
    put(store / LOG, lambda path: path.symlink_to("moved_away"))
    with pytest.raises(IntegrityError, match="no checkpoint"):
        list(StoreLogs(disk_contents(store), KEYS).open_all())
