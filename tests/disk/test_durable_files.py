"""The group commit: whole and durable or not at all, two flushes a round, never over a file."""

import errno
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from pipeline.core.store.files import Creation, ExpectedFile, NewFile, Presence
from pipeline.disk import durable_files, system_calls
from pipeline.disk.durable_files import ROUND_FILES, DurableFiles
from pipeline.disk.small_files import remove_leftovers
from pipeline.disk.system_calls import SystemCalls
from tests.builders import sha256
from tests.storage.stores import NamedCalls, WatchedCalls, files, open_descriptors

WRITERS = {"group commit": WatchedCalls, "fallback": NamedCalls}


@pytest.fixture(params=WRITERS)
def calls(request: pytest.FixtureRequest) -> WatchedCalls:
    return WRITERS[request.param]()


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Give a folder of the disk, as a store has it, and not of memory."""
    with TemporaryDirectory(prefix="rmos-durable-") as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def no_descriptor_is_left_open() -> Iterator[None]:
    before = open_descriptors()
    yield
    assert open_descriptors() == before


@pytest.fixture
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def new_files(count: int, folders: int = 1) -> list[NewFile]:
    return [NewFile(f"runs/{n % folders}/{n}.json", b"content %d" % n) for n in range(count)]


class CallLog:
    """Every call with its name and, for a link, the new name."""

    def __init__(self, calls: WatchedCalls) -> None:
        self.entries: list[tuple[str, tuple[Any, ...]]] = []
        calls.before = lambda name, arguments: self.entries.append((name, arguments))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.entries]

    def places(self, *names: str) -> list[int]:
        return [place for place, name in enumerate(self.names) if name in names]

    def linked_names(self) -> list[str]:
        return [arguments[1] for name, arguments in self.entries if name.startswith("link")]


def test_a_new_file_is_created_with_its_bytes(tmp_path: Path, calls: WatchedCalls) -> None:
    wanted = NewFile("runs/2025-12-18/a.json", b"{}")
    assert DurableFiles(tmp_path, calls).create([wanted]) == {wanted.path: Creation.CREATED}
    assert files(tmp_path) == {wanted.path: b"{}"}


def test_an_empty_file_can_be_created(tmp_path: Path, calls: WatchedCalls) -> None:
    DurableFiles(tmp_path, calls).create([NewFile("attachments/empty", b"")])
    assert files(tmp_path) == {"attachments/empty": b""}


def test_no_files_ask_nothing_of_the_disk(tmp_path: Path, calls: WatchedCalls) -> None:
    writer = DurableFiles(tmp_path, calls)
    log = CallLog(calls)
    assert writer.create([]) == {}
    assert log.names == []


def test_a_file_that_is_there_with_the_same_bytes_is_success(
    tmp_path: Path, calls: WatchedCalls
) -> None:
    writer = DurableFiles(tmp_path, calls)
    writer.create([NewFile("a/b", b"same")])
    inode = (tmp_path / "a/b").stat().st_ino
    assert writer.create([NewFile("a/b", b"same")]) == {"a/b": Creation.SAME}
    assert (tmp_path / "a/b").stat().st_ino == inode


@pytest.mark.parametrize("found", [b"", b"sam", b"samE", b"same and more", b"other"])
def test_a_file_with_other_bytes_is_reported_and_not_touched(
    tmp_path: Path, calls: WatchedCalls, found: bytes
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b").write_bytes(found)
    before = (tmp_path / "a/b").stat()
    made = DurableFiles(tmp_path, calls).create([NewFile("a/b", b"same")])
    assert made == {"a/b": Creation.DIFFERENT}
    after = (tmp_path / "a/b").stat()
    assert files(tmp_path) == {"a/b": found}
    assert (after.st_ino, after.st_mtime_ns, after.st_mode) == (
        before.st_ino,
        before.st_mtime_ns,
        before.st_mode,
    )


def test_a_difference_behind_the_first_megabyte_is_found(
    tmp_path: Path, calls: WatchedCalls
) -> None:
    wanted = bytes(3 << 20)
    (tmp_path / "big").write_bytes(wanted[:-1] + b"x")
    made = DurableFiles(tmp_path, calls).create([NewFile("big", wanted)])
    assert made == {"big": Creation.DIFFERENT}


def test_a_file_whose_need_has_other_bytes_is_not_made(tmp_path: Path, calls: WatchedCalls) -> None:
    (tmp_path / "blob").write_bytes(b"changed")
    made = DurableFiles(tmp_path, calls).create(
        [
            NewFile("blob", b"right"),
            NewFile("good", b"blob"),
            NewFile("lost", b"artifact", needs=frozenset({"blob", "good"})),
            NewFile("kept", b"artifact", needs=frozenset({"good"})),
        ]
    )
    assert made == {
        "blob": Creation.DIFFERENT,
        "good": Creation.CREATED,
        "lost": Creation.NOT_MADE,
        "kept": Creation.CREATED,
    }
    assert set(files(tmp_path)) == {"blob", "good", "kept"}


def test_a_need_of_an_earlier_round_counts(tmp_path: Path, calls: WatchedCalls) -> None:
    (tmp_path / "blob").write_bytes(b"changed")
    wanted = [
        NewFile("blob", b"right"),
        *new_files(ROUND_FILES),
        NewFile("lost", b"artifact", needs=frozenset({"blob"})),
    ]
    assert DurableFiles(tmp_path, calls).create(wanted)["lost"] is Creation.NOT_MADE


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_modes_of_files_do_not_depend_on_the_umask(
    tmp_path: Path, calls: WatchedCalls, usual_umask: None, umask: int
) -> None:
    os.umask(umask)
    DurableFiles(tmp_path, calls).create(
        [NewFile("runs/a", b"open"), NewFile("quarantine/ab/cd/x", b"secret", private=True)]
    )
    modes = {
        path.relative_to(tmp_path).as_posix(): stat.S_IMODE(path.stat().st_mode)
        for path in tmp_path.rglob("*")
    }
    assert modes == {
        "runs": 0o755 & ~umask,
        "runs/a": 0o444,
        "quarantine": 0o700,
        "quarantine/ab": 0o700,
        "quarantine/ab/cd": 0o700,
        "quarantine/ab/cd/x": 0o400,
    }


def test_a_umask_that_takes_nothing_costs_no_call_for_each_file(
    tmp_path: Path, usual_umask: None
) -> None:
    calls = WatchedCalls()
    writer = DurableFiles(tmp_path, calls)
    log = CallLog(calls)
    writer.create([*new_files(20), NewFile("quarantine/x", b"secret", private=True)])
    assert log.names.count("mode_of") == 2
    assert "set_mode" not in log.names
    for name in ("open_unnamed", "write", "link_unnamed"):
        assert log.names.count(name) == 21


def test_a_mode_that_cannot_be_set_is_no_file(tmp_path: Path, usual_umask: None) -> None:
    os.umask(0o077)
    calls = WatchedCalls()
    writer = DurableFiles(tmp_path, calls)

    def refuse(name: str, arguments: tuple[Any, ...]) -> None:
        if name == "set_mode":
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    calls.before = refuse
    with pytest.raises(OSError, match="Input/output error"):
        writer.create(new_files(3))
    assert files(tmp_path) == {}


@pytest.mark.parametrize("flags", [0x1000, 0], ids=["by descriptor", "by /proc"])
def test_a_file_gets_its_name_from_a_kernel_of_any_age(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: int
) -> None:
    """Without its flag linkat finds nothing, as before Linux 6.10 without a special right."""
    monkeypatch.setattr(system_calls, "_AT_EMPTY_PATH", flags)
    writer = DurableFiles(tmp_path)
    name = "runs/späne.json"
    assert writer.create([NewFile(name, b"whole")]) == {name: Creation.CREATED}
    assert files(tmp_path) == {name: b"whole"}
    assert writer.create([NewFile(name, b"other")]) == {name: Creation.DIFFERENT}
    with pytest.raises(OSError) as caught:  # noqa: PT011  # which one depends on the kernel
        SystemCalls().link_unnamed(9999, "new", 9998)
    assert caught.value.filename2 == "new"


def test_every_file_is_closed_where_closing_one_fails(tmp_path: Path) -> None:
    calls = WatchedCalls()
    writer = DurableFiles(tmp_path, calls)

    def fail(name: str, arguments: tuple[Any, ...]) -> None:
        if name == "close":
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    calls.before = fail
    with pytest.raises(OSError, match="Input/output error"):
        writer.create(new_files(9))


def test_short_writes_are_completed(tmp_path: Path, calls: WatchedCalls) -> None:
    class ShortWrites(type(calls)):  # type: ignore[misc]
        def write(self, descriptor: int, content: memoryview) -> int:
            return os.write(descriptor, content[:7])

    content = bytes(range(256)) * 3
    DurableFiles(tmp_path, ShortWrites()).create([NewFile("a", content)])
    assert files(tmp_path) == {"a": content}


def make_symlink_to_the_same_bytes(path: Path) -> None:
    other = path.with_name("elsewhere")
    other.write_bytes(b"same")
    path.symlink_to(other.name)


def make_symlink_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def make_dangling_symlink(path: Path) -> None:
    path.symlink_to("nowhere")


UNEXPECTED_THINGS = {
    "a symbolic link to the same bytes": make_symlink_to_the_same_bytes,
    "a symbolic link to itself": make_symlink_to_itself,
    "a symbolic link to nothing": make_dangling_symlink,
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
}


@pytest.mark.parametrize("unexpected", UNEXPECTED_THINGS)
@pytest.mark.timeout(120)
def test_what_is_no_file_of_ours_under_the_name_is_different_and_stays(
    tmp_path: Path, calls: WatchedCalls, unexpected: str
) -> None:
    UNEXPECTED_THINGS[unexpected](tmp_path / "a")
    before = (tmp_path / "a").lstat()
    writer = DurableFiles(tmp_path, calls)
    for content in (b"same", b"", bytes(before.st_size)):
        assert writer.create([NewFile("a", content)]) == {"a": Creation.DIFFERENT}
        assert (
            writer.presence([ExpectedFile("a", sha256(content), len(content))])["a"]
            is Presence.DIFFERENT
        )
    after = (tmp_path / "a").lstat()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_a_file_that_we_may_not_read_is_different(
    tmp_path: Path, calls: WatchedCalls, number: int
) -> None:
    (tmp_path / "a").write_bytes(b"same")
    writer = DurableFiles(tmp_path, calls)

    def refuse(name: str, arguments: tuple[Any, ...]) -> None:
        if name == "open_existing":
            raise OSError(number, os.strerror(number))

    calls.before = refuse
    assert writer.create([NewFile("a", b"same")]) == {"a": Creation.DIFFERENT}
    assert writer.presence([ExpectedFile("a", "0" * 64, 4)]) == {"a": Presence.DIFFERENT}


def test_a_symbolic_link_in_place_of_a_folder_is_refused(
    tmp_path: Path, calls: WatchedCalls
) -> None:
    (tmp_path / "outside").mkdir()
    root = tmp_path / "root"
    root.mkdir()
    (root / "runs").symlink_to("../outside")
    with pytest.raises(NotADirectoryError):
        DurableFiles(root, calls).create([NewFile("runs/a", b"x")])
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_file_in_place_of_a_folder_is_refused(tmp_path: Path, calls: WatchedCalls) -> None:
    (tmp_path / "runs").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        DurableFiles(tmp_path, calls).create([NewFile("runs/a", b"x")])


def test_the_root_itself_may_be_a_symbolic_link(tmp_path: Path, calls: WatchedCalls) -> None:
    (tmp_path / "volume").mkdir()
    (tmp_path / "root").symlink_to("volume")
    DurableFiles(tmp_path / "root", calls).create([NewFile("runs/a", b"x")])
    assert files(tmp_path / "volume") == {"runs/a": b"x"}


def test_a_folder_that_another_worker_makes_at_the_same_moment_is_used(
    tmp_path: Path, calls: WatchedCalls
) -> None:
    def be_faster(name: str, arguments: tuple[Any, ...]) -> None:
        if name == "make_folder":
            os.mkdir(arguments[0], 0o755, dir_fd=arguments[1])

    writer = DurableFiles(tmp_path, calls)
    calls.before = be_faster
    assert writer.create([NewFile("a/b/c", b"x")]) == {"a/b/c": Creation.CREATED}


def test_a_file_that_another_worker_links_at_the_same_moment_is_compared(
    tmp_path: Path, calls: WatchedCalls
) -> None:
    def be_faster(name: str, arguments: tuple[Any, ...]) -> None:
        if name.startswith("link"):
            (tmp_path / arguments[1]).write_bytes(b"theirs")

    writer = DurableFiles(tmp_path, calls)
    calls.before = be_faster
    made = writer.create([NewFile("a", b"theirs"), NewFile("b", b"ours")])
    assert made == {"a": Creation.SAME, "b": Creation.DIFFERENT}


def test_many_threads_create_the_same_files_in_the_same_new_folders(tmp_path: Path) -> None:
    wanted = new_files(64, folders=16)
    made: list[Creation] = []
    barrier = threading.Barrier(8)

    def create() -> None:
        writer = DurableFiles(tmp_path)
        barrier.wait()
        made.extend(writer.create(wanted).values())

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made.count(Creation.CREATED) == 64
    assert made.count(Creation.SAME) == 7 * 64
    assert files(tmp_path) == {file.path: file.content for file in wanted}


@pytest.mark.parametrize("folders", [1, 7, 64])
def test_a_round_has_two_flushes_whatever_the_number_of_folders(
    tmp_path: Path, folders: int
) -> None:
    calls = WatchedCalls()
    writer = DurableFiles(tmp_path, calls)
    log = CallLog(calls)
    writer.create(new_files(64, folders))
    assert log.names.count("syncfs") == 2
    assert log.names.count("fsync") == 0


@pytest.mark.parametrize(("count", "rounds"), [(1, 1), (256, 1), (257, 2), (600, 3)])
def test_each_256_files_are_flushed_once_and_all_names_together(
    tmp_path: Path, count: int, rounds: int
) -> None:
    calls = WatchedCalls()
    writer = DurableFiles(tmp_path, calls)
    log = CallLog(calls)
    writer.create(new_files(count, 3))
    assert log.names.count("syncfs") == rounds + 1
    assert len(files(tmp_path)) == count


def test_contents_are_flushed_before_any_name_and_names_after_the_last(tmp_path: Path) -> None:
    calls = WatchedCalls()
    writer = DurableFiles(tmp_path, calls)
    log = CallLog(calls)
    writer.create(new_files(20, 4))
    first_flush, last_flush = log.places("syncfs")
    # The folder is open before anything is written: a flush tells of errors since then.
    assert log.names[0] == "open_folder"
    assert max(log.places("open_unnamed", "write", "mode_of")) < first_flush
    assert first_flush < min(log.places("link_unnamed", "make_folder"))
    assert max(log.places("link_unnamed", "make_folder")) < last_flush
    flushed = {arguments for name, arguments in log.entries if name == "syncfs"}
    assert len(flushed) == 1
    root = log.entries[-1][1]
    assert flushed == {root}, "the descriptor that is flushed is the first opened, closed last"


def test_files_that_were_there_are_flushed_all_the_same(tmp_path: Path) -> None:
    calls = WatchedCalls()
    writer = DurableFiles(tmp_path, calls)
    writer.create(new_files(3))
    log = CallLog(calls)
    assert set(writer.create(new_files(3)).values()) == {Creation.SAME}
    assert log.names.count("syncfs") == 2
    assert max(log.places("link_unnamed")) < max(log.places("syncfs"))


def test_files_are_linked_in_their_order(tmp_path: Path, calls: WatchedCalls) -> None:
    writer = DurableFiles(tmp_path, calls)
    log = CallLog(calls)
    writer.create(new_files(300, 5))
    assert log.linked_names() == [f"{n}.json" for n in range(300)]


def test_without_unnamed_files_each_file_and_each_folder_is_flushed(tmp_path: Path) -> None:
    calls = NamedCalls()
    writer = DurableFiles(tmp_path, calls)
    assert not writer.group_commits
    log = CallLog(calls)
    writer.create(new_files(20, 4))
    each = log.places("link_named")
    flushes = log.places("fsync")
    assert len([flush for flush in flushes if flush < each[-1]]) == 20
    for link in each:
        before = log.names[:link]
        assert before.count("fsync") == before.count("link_named") + 1
    # The root, `runs` and its four folders, once each, after the last name.
    assert len([flush for flush in flushes if flush > each[-1]]) == 6
    assert max(log.places("make_folder", "link_named", "unlink")) < flushes[-6]
    assert not list(tmp_path.glob(".*"))


def test_without_unnamed_files_a_file_that_was_there_is_flushed_too(tmp_path: Path) -> None:
    calls = NamedCalls()
    writer = DurableFiles(tmp_path, calls)
    writer.create([NewFile("runs/a", b"same")])
    log = CallLog(calls)
    writer.create([NewFile("runs/a", b"same")])
    (opened,) = log.places("open_existing")
    assert "fsync" in log.names[opened : opened + 2]
    assert log.names[opened:].count("fsync") == 3


class WithoutSyncfs(SystemCalls):
    def syncfs(self, descriptor: int) -> None:
        raise AttributeError(descriptor)


@pytest.mark.parametrize(
    "number", [errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL, errno.ENOSYS]
)
def test_a_file_system_without_unnamed_files_gets_the_fallback(tmp_path: Path, number: int) -> None:
    class WithoutUnnamed(SystemCalls):
        def open_unnamed(self, folder: int) -> int:
            raise OSError(number, os.strerror(number))

    writer = DurableFiles(tmp_path, WithoutUnnamed())
    assert not writer.group_commits
    assert writer.create([NewFile("a/b", b"x")]) == {"a/b": Creation.CREATED}
    assert files(tmp_path) == {"a/b": b"x"}


def test_a_system_without_syncfs_gets_the_fallback(tmp_path: Path) -> None:
    writer = DurableFiles(tmp_path, WithoutSyncfs())
    assert not writer.group_commits
    assert writer.create([NewFile("a/b", b"x")]) == {"a/b": Creation.CREATED}


def test_a_disk_that_fails_when_it_is_tried_gets_no_fallback(tmp_path: Path) -> None:
    class FailingDisk(SystemCalls):
        def syncfs(self, descriptor: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(OSError, match="Input/output error"):
        DurableFiles(tmp_path, FailingDisk())


def test_leftover_temporary_names_are_removed_and_nothing_else(tmp_path: Path) -> None:
    kept = [".hidden", ".0123.tmp", "store.json", f"{'a' * 32}.tmp", f".{'g' * 32}.tmp"]
    for name in [*kept, f".{'0a' * 16}.tmp"]:
        (tmp_path / name).write_bytes(b"")
    remove_leftovers(tmp_path, SystemCalls())
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_a_full_round_of_blobs_in_as_many_folders_fits_in_1024_descriptors(tmp_path: Path) -> None:
    calls = WatchedCalls()
    writer = DurableFiles(tmp_path, calls)
    most = 0

    def count(name: str, arguments: tuple[Any, ...]) -> None:
        nonlocal most
        most = max(most, open_descriptors() if name == "link_unnamed" else 0)

    calls.before = count
    writer.create(
        [NewFile(f"attachments/{n:02x}/{n:02x}/blob", b"%d" % n) for n in range(ROUND_FILES)]
    )
    assert ROUND_FILES * 3 < most < 900


def test_what_was_written_ahead_gets_its_names_by_the_same_two_flushes(tmp_path: Path) -> None:
    calls = WatchedCalls()
    writer = DurableFiles(tmp_path, calls)
    wanted = new_files(3 * ROUND_FILES, 3)
    log = CallLog(calls)
    written = writer.write(wanted[:-2])
    # The root is open before anything is written: a flush reports errors since then.
    assert log.names[0] == "open_folder"
    assert log.names.count("write") == len(wanted) - 2
    assert not log.linked_names()
    assert files(tmp_path) == {}
    assert set(writer.create(wanted, written).values()) == {Creation.CREATED}
    first_flush, last_flush = log.places("syncfs")
    assert log.names.count("write") == len(wanted)
    assert max(log.places("write", "set_mode")) < first_flush < min(log.places("link_unnamed"))
    assert max(log.places("link_unnamed")) < last_flush
    opened = next(arguments for name, arguments in log.entries if name == "syncfs")
    assert log.entries[-1] == ("close", opened)
    assert log.entries.count(("open_folder", (str(tmp_path),))) == 1
    assert log.linked_names() == [f"{n}.json" for n in range(len(wanted))]
    assert files(tmp_path) == {file.path: file.content for file in wanted}


def test_what_was_written_ahead_and_is_not_wanted_never_gets_a_name(tmp_path: Path) -> None:
    writer = DurableFiles(tmp_path)
    written = writer.write(new_files(4))
    wanted = [NewFile("runs/0/0.json", b"other"), NewFile("runs/0/1.json", b"content 1")]
    writer.create(wanted, written)
    assert files(tmp_path) == {file.path: file.content for file in wanted}
    writer.write(new_files(4)).close()
    assert len(files(tmp_path)) == 2


def test_a_file_that_was_written_ahead_with_another_mode_is_written_again(tmp_path: Path) -> None:
    writer = DurableFiles(tmp_path)
    writer.create([NewFile("a", b"x", private=True)], writer.write([NewFile("a", b"x")]))
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o400


def test_a_fault_while_writing_ahead_leaves_nothing_open(tmp_path: Path) -> None:
    calls = WatchedCalls()
    writer = DurableFiles(tmp_path, calls)

    def fill(name: str, arguments: tuple[Any, ...]) -> None:
        if name == "write" and bytes(arguments[1]) == b"content 3":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    calls.before = fill
    with pytest.raises(OSError, match="No space left"):
        writer.write(new_files(8))
    assert files(tmp_path) == {}


def test_no_more_is_written_ahead_than_may_be_open(
    tmp_path: Path, calls: WatchedCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 2_000
    monkeypatch.setattr(durable_files.resource, "getrlimit", lambda _: (limit, limit))
    writer = DurableFiles(tmp_path, calls)
    before = open_descriptors()
    wanted = new_files(600)
    written = writer.write(wanted)
    # A file system without unnamed files has nothing to write ahead: one descriptor is the root.
    assert open_descriptors() - before == 1 + ((limit - 1_536) // 4 if writer.group_commits else 0)
    assert len(writer.create(wanted, written)) == 600
    assert files(tmp_path) == {file.path: file.content for file in wanted}
