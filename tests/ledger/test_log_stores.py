"""The contract of `LogStore`, and the ledger over each implementation: the same bytes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.core.store.files import Files, NewFile
from pipeline.core.store.log_store import CHECKPOINT_FILE, Head, LogStore
from pipeline.disk.log_store import LOCK_FILE, open_to_write
from pipeline.errors import IntegrityError, LogMovedError
from pipeline.ledger.reader import LogReader
from pipeline.ledger.stored_log import find_logs
from pipeline.ledger.writer import Ledger
from tests.bucket.buckets import SCHEMES, SERVERS, contents_of, files_and_logs, objects_of
from tests.ledger.ledgers import (
    KEYS,
    LOG,
    OTHER_LOG,
    SIGNER,
    STORE_ID,
    NamedLogCalls,
    leaf,
    leaves,
    on_disk,
)
from tests.ledger.memory_logs import MemoryLogs
from tests.storage.memory_files import MemoryFiles

Opened = tuple[Files, LogStore]


def in_memory() -> tuple[MemoryFiles, MemoryLogs]:
    files = MemoryFiles()
    return files, MemoryLogs(files)


IMPLEMENTATIONS: dict[str, Callable[[Path], Opened]] = {
    "disk": open_to_write,
    "disk, a flush for each": lambda root: open_to_write(root, NamedLogCalls()),
    "memory": lambda _: in_memory(),
}


@pytest.fixture(params=[*IMPLEMENTATIONS, *SERVERS])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opened:
    if request.param in SCHEMES:
        return files_and_logs(objects_of(request, request.param))
    return IMPLEMENTATIONS[request.param](tmp_path)


def begun(opened: Opened, note: bytes = b"first") -> LogStore:
    """Give the logs with a checkpoint of one of them, which is no note at all."""
    files, logs = opened
    files.create([NewFile(f"{LOG.path}/{CHECKPOINT_FILE}", note)])
    return logs


def test_a_head_is_that_of_the_last_swap(opened: Opened) -> None:
    logs = begun(opened)
    for note in (b"second", b"third"):
        with logs.locked([LOG.path]) as locked:
            head = locked.heads([LOG.path])[LOG.path]
            swapped = locked.swap({LOG.path: (head, note)})
            # Of the same lock too, as a log may be swapped twice.
            assert locked.swap({LOG.path: (swapped[LOG.path], note)}) == swapped
        assert logs.heads([LOG.path, OTHER_LOG.path]) == swapped
        assert swapped[LOG.path].note == note


def test_of_a_log_that_went_on_nothing_is_swapped(opened: Opened) -> None:
    logs = begun(opened)
    first = logs.heads([LOG.path])[LOG.path]
    with logs.locked([LOG.path]) as locked:
        locked.swap({LOG.path: (first, b"second")})
    for stale in (first, Head(b"never")):
        with logs.locked([LOG.path]) as locked, pytest.raises(LogMovedError):
            locked.swap({LOG.path: (stale, b"third")})
        assert logs.heads([LOG.path])[LOG.path].note == b"second"


def test_a_log_that_is_not_there_cannot_be_swapped(opened: Opened) -> None:
    logs = begun(opened)
    with logs.locked([LOG.path]) as locked, pytest.raises(LogMovedError):
        locked.swap({OTHER_LOG.path: (Head(b"first"), b"second")})
    assert logs.heads([OTHER_LOG.path]) == {}


def test_tiles_are_found_by_path_and_listed_by_folder(opened: Opened) -> None:
    files, logs = opened
    assert logs.with_tiles([LOG.path, OTHER_LOG.path]) == set()
    files.create([NewFile(f"{LOG.path}/tile/0/000.p/{width}", b"") for width in (10, 2)])
    assert logs.with_tiles([LOG.path, OTHER_LOG.path]) == {LOG.path}
    tiles = [f"{LOG.path}/tile/0/000{end}" for end in (".p/2", "", ".p/10")]
    assert logs.tiles(tiles) == {tiles[0]: b"", tiles[2]: b""}
    found = {"tile/0": ["000.p"], "tile/0/000.p": ["10", "2"], "tile/1": []}
    names = {f"{LOG.path}/{folder}": names for folder, names in found.items()}
    assert logs.names(names) == names
    assert logs.logs() == [LOG.path]


def test_what_is_superseded_is_removed_and_what_is_not_there_is_no_fault(opened: Opened) -> None:
    files, logs = opened
    begun(opened)
    files.create([NewFile(f"{LOG.path}/tile/0/000.p/{width}", b"") for width in (1, 2)])
    with logs.locked([LOG.path]) as locked:
        locked.drop_unfinished(LOG.path)
        locked.remove(LOG.path, "tile/0/000.p", ["1", "9"], and_folder=False)
        folders = [f"{LOG.path}/tile/0/000.p", f"{LOG.path}/tile/0"]
        assert locked.names(folders) == {folders[0]: ["2"], folders[1]: ["000.p"]}
        locked.remove(LOG.path, "tile/0/000.p", ["2"], and_folder=True)
        locked.remove(LOG.path, "tile/0/001.p", ["1"], and_folder=True)
        locked.remove(LOG.path, "tile/9/000.p", ["1"], and_folder=True)
        assert locked.names(folders) == {folder: [] for folder in folders}


def ledger(opened: Opened) -> Ledger:
    return Ledger(*opened, STORE_ID, [SIGNER])


def append(opened: Opened) -> None:
    """Append to two logs in batches, some of them again, by two processes."""
    writers = [ledger(opened), ledger(opened)]
    for number, end in enumerate((1, 3, 200, 255, 256, 300, 700)):
        batch = {LOG: leaves(max(0, end - 40), end)} if end < 200 else {LOG: leaves(1, end)}
        if number % 2:
            batch[OTHER_LOG] = leaves(0, number, OTHER_LOG)
        writers[number % 2].append_all(batch)


def test_the_ledger_reads_what_it_appended(opened: Opened) -> None:
    append(opened)
    _, logs = opened
    assert find_logs(logs) == [LOG, OTHER_LOG]
    reader = LogReader.open(logs, LOG, STORE_ID, KEYS)
    assert list(reader.leaves()) == leaves(0, 700)
    asked = ledger(opened).leaves_of({LOG: [3, 900], OTHER_LOG: [0, 5]})
    assert asked == {(LOG, 3): leaf(3), (OTHER_LOG, 0): leaf(0, OTHER_LOG)}


def test_another_leaf_of_a_known_offset_stops(opened: Opened) -> None:
    append(opened)
    with pytest.raises(IntegrityError, match="expected leaf 5, of offset 5"):
        ledger(opened).append_all({LOG: [leaf(5, body="other")]})


def test_the_files_are_the_same_wherever_they_lie(tmp_path: Path) -> None:
    append(open_to_write(tmp_path))
    append(memory := in_memory())
    found = {path: content for path, content in on_disk(tmp_path).items() if content is not None}
    locks = {f"{log.path}/{LOCK_FILE}" for log in (LOG, OTHER_LOG)}
    assert memory[0].contents == {path: found[path] for path in found.keys() - locks}


@pytest.mark.parametrize("server", SERVERS)
def test_the_files_of_a_bucket_are_those_of_the_memory(
    request: pytest.FixtureRequest, server: str
) -> None:
    objects = objects_of(request, server)
    files, logs = files_and_logs(objects)
    append((files, logs))
    logs.close()
    append(memory := in_memory())
    assert contents_of(objects) == memory[0].contents


def test_who_is_overtaken_without_a_lock_swaps_nothing_and_goes_on_from_there() -> None:
    """Two that both believe to own a log: of equal leaves both are right, and none is twice."""
    shared = in_memory()
    slow, fast = ledger(shared), ledger(shared)
    slow.append_all({LOG: leaves(0, 5)})
    with slow.appending({LOG: leaves(5, 9)}) as batch:
        fast.append_all({LOG: leaves(5, 7)})
        creations = shared[0].link(batch.files)
        with pytest.raises(LogMovedError):
            batch.publish(creations)
    assert ledger(shared).append_all({LOG: leaves(0, 7)})[LOG].size == 7
    assert slow.append_all({LOG: leaves(5, 9)})[LOG].size == 9
    assert fast.append_all({LOG: leaves(7, 12)})[LOG].size == 12
    append_once = in_memory()
    ledger(append_once).append_all({LOG: leaves(0, 12)})
    assert shared[0].contents == append_once[0].contents


@pytest.mark.parametrize("size", [0, 5])
@pytest.mark.parametrize("where", ["disk", "memory"])
def test_a_known_log_that_loses_its_checkpoint_stops_its_writer(
    tmp_path: Path, where: str, size: int
) -> None:
    files, logs = IMPLEMENTATIONS[where](tmp_path)
    writer = Ledger(files, logs, STORE_ID, [SIGNER])
    writer.begin([LOG])
    writer.append_all({LOG: leaves(0, size)})
    assert writer.opened([LOG])[LOG][1] == size
    checkpoint = f"{LOG.path}/{CHECKPOINT_FILE}"
    if isinstance(files, MemoryFiles):
        del files.contents[checkpoint]
        # The head that it has just seen is not asked for again, but swapped.
        with pytest.raises(LogMovedError):
            writer.append_all({LOG: leaves(size, 9)})
    else:
        (tmp_path / checkpoint).unlink()
    with pytest.raises(IntegrityError, match="expected a checkpoint, found none"):
        writer.append_all({LOG: leaves(size, 9)})
    assert not files.present([checkpoint])
