"""A power cut: what was acknowledged before it is there after it.

A store lies on a file system in an image file. A child commits batches and tells of each that is
acknowledged through a pipe. In the middle of it the image is copied: the page cache of the mounted
file system is not in it, so only what was flushed counts. The copy is mounted, which recovers its
journal, and looked through.

The model is the loss of memory, not a disk that lies about its own cache.
"""

import os
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from functools import cache, partial
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.runs.verdict import JudgedRun
from pipeline.disk.system_calls import LogSystemCalls, SystemCalls
from pipeline.errors import RmosError
from pipeline.storage.batch_plan import JudgedRecord
from pipeline.storage.run_store import RunStore
from tests.builders import attachment, red_request, run_request
from tests.disk.mounts import mounted, run_program, why_not
from tests.ledger.ledgers import NamedLogCalls, check_whole, ledger
from tests.storage.stores import judged_record, kinds, make_store, opened

IMAGE_BYTES = 64 << 20
BATCHES = 100
RUNS_OF_A_BATCH = 6
CUTS = 3


def mounted_image(image: Path, folder: Path) -> AbstractContextManager[Path]:
    # ext4 gives a file that replaces another its bytes early, and commits its journal every 5 s:
    # neither is promised anywhere.
    return mounted(folder, "-o", "loop,noauto_da_alloc,commit=300", str(image))


@pytest.fixture(scope="module")
def new_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give an image with an empty file system, or say why there can be none."""
    reason = why_not("mkfs.ext4")
    if reason is not None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("image")
    image = folder / "empty"
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    try:
        run_program("mkfs.ext4", "-q", "-F", str(image))
        with mounted_image(image, folder / "try"):
            pass
    except OSError as error:
        pytest.skip(f"no image can be mounted here: {error}")
    return image


@cache
def batch(number: int) -> list[JudgedRecord]:
    """Return a batch of runs: with blobs, with a quarantined request, and plain."""
    first = number * RUNS_OF_A_BATCH
    makers = (
        lambda n: run_request(run_id=f"run_{n}", attachments=[attachment(b"blob %d" % n)]),
        lambda n: red_request(run_id=f"run_{n}"),
        lambda n: run_request(run_id=f"run_{n}", created_at_utc="2026-01-01T00:00:00Z"),
    )
    return [
        judged_record(makers[n % len(makers)](n), n) for n in range(first, first + RUNS_OF_A_BATCH)
    ]


def commit(store: RunStore, records: list[JudgedRecord]) -> None:
    with store.write(records) as written:
        assert set(kinds(store.commit(records, None, written))) == {"persisted"}


class Worker:
    """A child that commits batches and tells of each by one byte."""

    def __init__(self, root: Path, calls: Callable[[], LogSystemCalls]) -> None:
        self.acknowledged = 0
        batches = [batch(number) for number in range(BATCHES)]
        self._reading, writing = os.pipe()
        self._child = os.fork()
        if self._child == 0:
            try:
                os.close(self._reading)
                made = calls()
                with opened(root, made, ledger=ledger(root, made)) as store:
                    for records in batches:
                        commit(store, records)
                        os.write(writing, b".")
                os._exit(0)
            finally:
                os._exit(1)
        os.close(writing)

    def wait_for(self, batches: int) -> None:
        """Wait until so many batches are acknowledged."""
        while self.acknowledged < batches:
            told = os.read(self._reading, 1)
            assert told, "the worker died"
            self.acknowledged += len(told)

    def stop_in_the_middle(self) -> None:
        """Stop the child wherever it is, so that the copy is of one moment."""
        os.kill(self._child, signal.SIGSTOP)
        os.waitpid(self._child, os.WUNTRACED)
        os.set_blocking(self._reading, False)
        with suppress(BlockingIOError):
            self.acknowledged += len(os.read(self._reading, BATCHES))
        os.set_blocking(self._reading, True)

    def go_on(self) -> None:
        os.kill(self._child, signal.SIGCONT)

    def end(self) -> None:
        os.kill(self._child, signal.SIGKILL)
        os.waitpid(self._child, 0)
        os.close(self._reading)


@contextmanager
def working(root: Path, calls: Callable[[], LogSystemCalls]) -> Iterator[Worker]:
    worker = Worker(root, calls)
    try:
        yield worker
    finally:
        worker.end()


def lost(root: Path, batches: int) -> list[str]:
    """Return what is missing or broken of the first batches, path by path."""
    found = []
    with closing(sqlite3.connect(root / "index.sqlite3")) as index:
        if index.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
            found.append("index.sqlite3")
        rows = dict(index.execute("SELECT run_id, artifact_sha256 FROM runs"))
        (position,) = index.execute("SELECT max(next_offset) FROM positions").fetchone()
    if (position or 0) < batches * RUNS_OF_A_BATCH:
        found.append("position")
    for number in range(batches):
        for record in batch(number):
            assert isinstance(record.verdict, JudgedRun)
            if rows.get(record.verdict.run_id) != record.verdict.artifact_sha256:
                found.append(f"row of {record.verdict.run_id}")
            for path, sha256 in files_of(record.verdict).items():
                if not is_whole(root / path, sha256):
                    found.append(path)
    return found + lost_leaves(root, max(position or 0, batches * RUNS_OF_A_BATCH))


def lost_leaves(root: Path, count: int) -> list[str]:
    """Return what is missing or broken of the log, which must cover so many offsets."""
    try:
        leaves = list(check_whole(root).leaves())
    except (AssertionError, RmosError) as error:
        return [f"log: {error}"]
    covered = {leaf.offset for leaf in leaves}
    files = {leaf.path: leaf.sha256 for leaf in leaves if leaf.path and leaf.sha256}
    return [
        *(f"leaf of {offset}" for offset in range(count) if offset not in covered),
        *(f"leaf without {path}" for path in files if not is_whole(root / path, files[path])),
    ]


def files_of(verdict: JudgedRun) -> dict[str, str]:
    """Return path and hash of every file that the run needs."""
    named = {verdict.path: verdict.artifact_sha256}
    for blob in verdict.built.blobs:
        named[f"attachments/{blob.sha256[:2]}/{blob.sha256[2:4]}/{blob.sha256}"] = blob.sha256
    kept = verdict.built.quarantined
    if kept is not None:
        named[f"quarantine/{kept.sha256[:2]}/{kept.sha256[2:4]}/{kept.sha256}"] = kept.sha256
    return named


def is_whole(path: Path, sha256: str) -> bool:
    return path.exists() and sha256_of_bytes(path.read_bytes()) == sha256


def half_files(root: Path) -> list[str]:
    """Return every file that is there with bytes other than its own, acknowledged or not."""
    whole = {
        path: sha256
        for number in range(BATCHES)
        for record in batch(number)
        if isinstance(record.verdict, JudgedRun)
        for path, sha256 in files_of(record.verdict).items()
    }
    there = (root / folder for folder in ("runs", "attachments", "quarantine"))
    paths = [path for folder in there for path in folder.rglob("*") if path.is_file()]
    return [
        str(path) for path in paths if not is_whole(path, whole[path.relative_to(root).as_posix()])
    ]


def copy_of(image: Path, name: str) -> Path:
    return Path(shutil.copyfile(image, image.with_name(name)))


@pytest.fixture
def image(new_image: Path, tmp_path: Path) -> Path:
    return Path(shutil.copyfile(new_image, tmp_path / "image"))


@pytest.mark.parametrize("calls", [LogSystemCalls, NamedLogCalls], ids=["group commit", "fallback"])
def test_whatever_was_acknowledged_before_a_power_cut_is_there_after_it(
    image: Path, tmp_path: Path, calls: type[LogSystemCalls]
) -> None:
    cuts: list[tuple[Path, int]] = []
    with mounted_image(image, tmp_path / "disk") as root:
        make_store(root)
        with working(root, calls) as worker:
            for cut in range(CUTS):
                worker.wait_for(worker.acknowledged + 1 + 3 * cut)
                worker.stop_in_the_middle()
                cuts.append((copy_of(image, f"cut_{cut}"), worker.acknowledged))
                worker.go_on()
    for copy, batches in cuts:
        with mounted_image(copy, tmp_path / f"{copy.name}_disk") as root:
            assert lost(root, batches) == []
            assert half_files(root) == []
    assert len({batches for _, batches in cuts}) == CUTS


def test_after_a_power_cut_the_worker_goes_on_where_it_was(image: Path, tmp_path: Path) -> None:
    with mounted_image(image, tmp_path / "disk") as root:
        make_store(root)
        with working(root, LogSystemCalls) as worker:
            worker.wait_for(3)
            worker.stop_in_the_middle()
            copy = copy_of(image, "cut")
            done = worker.acknowledged
    with mounted_image(copy, tmp_path / "cut_disk") as root:
        with opened(root, ledger=ledger(root)) as store:
            for number in range(done + 2):
                commit(store, batch(number))
        assert lost(root, done + 2) == []


def flush(root: Path) -> None:
    """Make all that is there survive, so that only what comes later can be lost."""
    folder = os.open(root, os.O_RDONLY)
    try:
        SystemCalls().syncfs(folder)
    finally:
        os.close(folder)


class WithoutFlush(LogSystemCalls):
    """A program in which somebody forgot the flushes."""

    def syncfs(self, descriptor: int) -> None:
        del descriptor


class WithoutNamedFlush(NamedLogCalls):
    """The same for the fallback."""

    def fsync(self, descriptor: int) -> None:
        del descriptor


def forget_to_flush(connection: sqlite3.Connection, *rest: object) -> None:
    del rest
    connection.execute("PRAGMA synchronous=OFF")


@pytest.mark.parametrize("calls", [WithoutFlush, WithoutNamedFlush])
@pytest.mark.parametrize("index_flushes", [True, False])
def test_without_its_flushes_the_loss_is_seen(
    image: Path, tmp_path: Path, calls: type[LogSystemCalls], index_flushes: bool
) -> None:
    """Prove that the tests above can fail: cut at once after the first acknowledgement."""
    with mounted_image(image, tmp_path / "disk") as root:
        make_store(root)
        with opened(root):
            flush(root)
        if not index_flushes:
            event.listen(Engine, "checkout", forget_to_flush)
        try:
            with working(root, calls) as worker:
                worker.wait_for(1)
                worker.stop_in_the_middle()
                copy = copy_of(image, "cut")
                done = worker.acknowledged
        finally:
            if not index_flushes:
                event.remove(Engine, "checkout", forget_to_flush)
    with mounted_image(copy, tmp_path / "cut_disk") as root:
        missing = lost(root, done)
    # An index that flushes takes the names with it, and leaves files without content.
    artifacts = [path for path in missing if path.startswith("runs/")]
    assert len(artifacts) >= RUNS_OF_A_BATCH
    assert any(path.startswith("row") for path in missing) is not index_flushes


class Forgetful(LogSystemCalls):
    """A program that forgets one flush of its last batch, and is stopped before another.

    Attributes:
        flushes: Those of the last batch so far; None before it begins.
    """

    def __init__(self, forgotten: int | str | None, cut: int) -> None:
        self.forgotten = forgotten
        self.cut = cut
        self.flushes: int | None = None

    def syncfs(self, descriptor: int) -> None:
        if self.flushes is not None:
            self.flushes += 1
            if self.flushes == self.cut:
                os.kill(os.getpid(), signal.SIGSTOP)
        if self.flushes is None or self.flushes != self.forgotten:
            super().syncfs(descriptor)


@contextmanager
def stopped(work: Callable[[], None]) -> Iterator[None]:
    """Do `work` in a child that stops itself in it, and is killed with the block."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(1)
    try:
        _, status = os.waitpid(child, os.WUNTRACED)
        assert os.WIFSTOPPED(status), "the worker died"
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


CONTENTS, NAMES, CHECKPOINT = 1, 2, 3
"""What each flush of a batch makes durable, as they follow each other."""
NEVER = 4
"""Behind the end of the batch."""
WHOLE_BATCHES = 3


def work_of(root: Path, calls: Forgetful) -> None:
    """Store batches with all flushes, and one without."""
    with opened(root, calls, ledger=ledger(root, calls)) as store:
        for number in range(WHOLE_BATCHES):
            commit(store, batch(number))
        # The log of the index is written from its begin: a flush of a file that does not grow takes
        # no names of others with it.
        with closing(sqlite3.connect(root / "index.sqlite3")) as index:
            index.execute("PRAGMA wal_checkpoint(RESTART)")
        calls.flushes = 0
        if calls.forgotten == "index":
            event.listen(Engine, "checkout", forget_to_flush)
        commit(store, batch(WHOLE_BATCHES))
        # Not behind the end of the store, which flushes the index.
        os.kill(os.getpid(), signal.SIGSTOP)


@pytest.mark.parametrize(
    ("forgotten", "cut"),
    [
        *((CONTENTS, NAMES), (NAMES, CHECKPOINT), (CHECKPOINT, NEVER), ("index", NEVER)),
        *((None, NAMES), (None, CHECKPOINT), (None, NEVER)),
    ],
)
def test_no_flush_of_a_batch_may_be_forgotten(
    image: Path, tmp_path: Path, forgotten: int | str | None, cut: int
) -> None:
    """Each is needed at one moment: where the power is cut then, and the journal was written."""
    calls = Forgetful(forgotten, cut)
    with mounted_image(image, tmp_path / "disk") as root:
        make_store(root)
        with stopped(partial(work_of, root, calls)):
            if cut != NEVER:
                commit_journal(root)
            copy = copy_of(image, "cut")
    with mounted_image(copy, tmp_path / "cut_disk") as root:
        found = lost(root, WHOLE_BATCHES + (cut == NEVER)) + half_files(root)
    assert bool(found) is (forgotten is not None), found


def commit_journal(root: Path) -> None:
    """Let the file system write its journal, as it may at any time, and no bytes of files."""
    with (root / "other").open("wb") as file:
        file.write(b"other")
        file.flush()
        os.fsync(file.fileno())
