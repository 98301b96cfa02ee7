"""Logs on disk: leaves in order, never changed, and the same files whatever the batches."""

import fcntl
import gc
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.store.files import Creation
from pipeline.disk.durable_files import DurableFiles
from pipeline.disk.log_store import NEW_CHECKPOINT_FILE
from pipeline.disk.system_calls import LogSystemCalls
from pipeline.errors import IntegrityError
from pipeline.ledger.leaf import LedgerLeaf
from pipeline.ledger.log_id import LogId, signer_name
from pipeline.ledger.reader import LogReader
from pipeline.ledger.tlog import EvidenceError, tiles
from pipeline.ledger.tlog import append as tree_appender
from pipeline.ledger.tlog.checkpoints import Checkpoint, open_checkpoint
from pipeline.ledger.tlog.merkle import leaf_hash
from pipeline.ledger.tlog.tiles import ENTRIES, Tile, TileHashes, tiles_of_append
from tests.ledger.ledgers import (
    KEYS,
    LOG,
    OTHER_LOG,
    SIGNER,
    STORE_ID,
    TOPIC,
    WRITERS,
    WatchedLogCalls,
    check_whole,
    damage,
    in_child,
    leaf,
    leaves,
    ledger,
    on_disk,
    reader,
    tile_path,
)
from tests.ledger.tlog.signers import signer


@pytest.fixture(autouse=True)
def no_descriptor_is_left_open() -> Iterator[None]:
    before = set(os.listdir("/proc/self/fd"))
    yield
    # What tests before this one have left to the collector may be gone by now.
    assert set(os.listdir("/proc/self/fd")) <= before


@pytest.fixture(params=WRITERS)
def calls(request: pytest.FixtureRequest) -> WatchedLogCalls:
    return WRITERS[request.param]()


def test_what_is_appended_is_read_back(tmp_path: Path, calls: WatchedLogCalls) -> None:
    checkpoints = ledger(tmp_path, calls).append_all({LOG: leaves(0, 300)})
    found = check_whole(tmp_path)
    assert checkpoints == {LOG: found.checkpoint}
    assert [found.leaf(index) for index in range(found.size)] == leaves(0, 300)
    assert list(found.entries(254, 258)) == [leaf.encode() for leaf in leaves(254, 258)]
    assert list(found.entries(299, 900)) == [leaves(299, 300)[0].encode()]


def test_a_log_lies_where_the_design_says(tmp_path: Path) -> None:
    ledger(tmp_path).append_all({LOG: leaves(0, 257)})
    files = {path for path, content in on_disk(tmp_path).items() if content is not None}
    folder = f"ledger/1/{TOPIC}-0"
    assert files == {f"{folder}/checkpoint", f"{folder}/lock"} | {
        f"{folder}/{tile}" for tile in tiles_of_append(0, 257)
    }
    for path in files - {f"{folder}/lock"}:
        assert stat.S_IMODE((tmp_path / path).stat().st_mode) == 0o444, path
    assert (
        (tmp_path / folder / "checkpoint")
        .read_text()
        .startswith(f"rmos/{STORE_ID}/1/{TOPIC}/0\n257\n")
    )


@settings(max_examples=25)
@given(st.lists(st.integers(1, 599), max_size=8), st.booleans())
def test_the_files_do_not_depend_on_the_batches(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], restart: bool
) -> None:
    whole, parts = (tmp_path_factory.mktemp(name) for name in ("whole", "parts"))
    ledger(whole).append_all({LOG: leaves(0, 600), OTHER_LOG: leaves(0, 90, OTHER_LOG)})
    writer = ledger(parts)
    ends = sorted({*cuts, 600})
    for start, end in zip([0, *ends], ends, strict=False):
        writer.append_all({LOG: leaves(start, end)})
        if restart:
            writer = ledger(parts)
    for offset in range(0, 90, 30):
        writer.append_all({OTHER_LOG: leaves(offset, offset + 30, OTHER_LOG)})
    assert on_disk(parts) == on_disk(whole)


def test_every_leaf_has_a_proof_and_every_checkpoint_a_continuation(tmp_path: Path) -> None:
    writer = ledger(tmp_path)
    seen: list[Checkpoint] = [Checkpoint(LOG.origin(STORE_ID), 0, b"\x00" * 32)]
    seen.clear()
    for end in (1, 2, 100, 256, 257, 300):
        start = seen[-1].size if seen else 0
        seen += writer.append_all({LOG: leaves(start, end)}).values()
    found = reader(tmp_path)
    for checkpoint in seen:
        found.prove_consistency(checkpoint)
    for index in (0, 1, 255, 256, 299):
        proof = found.prove(index)
        assert proof.verify(leaf(index).encode(), KEYS) == found.checkpoint
        with pytest.raises(EvidenceError):
            proof.verify(leaf(index + 1).encode(), KEYS)
    with pytest.raises(IntegrityError, match="expected a leaf below 300, found 300"):
        found.prove(300)


def test_the_same_leaves_again_append_nothing(tmp_path: Path, calls: WatchedLogCalls) -> None:
    ledger(tmp_path, calls).append_all({LOG: leaves(0, 300)})
    before = on_disk(tmp_path)
    for again in (leaves(0, 300), leaves(290, 300), [leaf(0)], [leaf(7), leaf(256)]):
        for writer in (ledger(tmp_path, calls), ledger(tmp_path)):
            checkpoint = writer.append_all({LOG: again})[LOG]
            assert checkpoint.size == 300
    assert on_disk(tmp_path) == before


def test_of_leaves_known_in_part_the_rest_is_appended(tmp_path: Path) -> None:
    writer = ledger(tmp_path)
    writer.append_all({LOG: leaves(0, 250)})
    writer.append_all({LOG: leaves(200, 270)})
    assert check_whole(tmp_path).size == 270


@pytest.mark.parametrize("offset", [0, 100, 255, 256, 299])
def test_another_leaf_of_a_known_offset_stops(tmp_path: Path, offset: int) -> None:
    writer = ledger(tmp_path)
    writer.append_all({LOG: leaves(0, 300)})
    before = on_disk(tmp_path)
    expected = rf"expected leaf {offset}, of offset {offset}, to be .*found .*Nothing was repaired"
    with pytest.raises(IntegrityError, match=expected):
        writer.append_all({LOG: [leaf(offset, body="other"), *leaves(300, 310)]})
    assert on_disk(tmp_path) == before
    assert writer.append_all({LOG: leaves(300, 310)})[LOG].size == 310


def test_offsets_may_leave_gaps_which_are_never_filled(tmp_path: Path) -> None:
    """A broker keeps offsets for its own transaction markers."""
    writer = ledger(tmp_path)
    kept = [leaf(offset) for offset in range(1000, 2000, 3)]
    writer.append_all({LOG: kept})
    assert writer.append_all({LOG: kept[100:]})[LOG].size == len(kept)
    found = check_whole(tmp_path)
    assert [found.index_of(each.offset) for each in kept] == list(range(len(kept)))
    for offset in (0, 999, 1001, 1998, 2000, 9999):
        assert found.index_of(offset) is None
    for missing in (5, 1001, 1997):
        with pytest.raises(IntegrityError, match=f"expected a leaf of offset {missing}"):
            writer.append_all({LOG: [leaf(missing)]})


def test_what_a_record_was_is_reported(tmp_path: Path) -> None:
    writer = ledger(tmp_path)
    assert writer.leaves_of({LOG: range(5)}) == {}
    assert not (tmp_path / "ledger").exists()
    writer.append_all({LOG: leaves(10, 300)})
    for asked in (writer, ledger(tmp_path)):
        found = asked.leaves_of({LOG: range(5, 400), OTHER_LOG: [1]})
        assert found == {(LOG, each.offset): each for each in leaves(10, 300)}


@pytest.mark.parametrize(
    "wrong",
    [
        [leaf(1), leaf(0)],
        [leaf(0), leaf(0)],
        leaves(0, 3, OTHER_LOG),
        [leaf(0), leaf(1, LogId(1, "rmos.other", 0))],
    ],
    ids=["order", "twice", "partition", "topic"],
)
def test_leaves_of_another_log_or_order_are_refused(
    tmp_path: Path, wrong: list[LedgerLeaf]
) -> None:
    with pytest.raises(ValueError, match="in the order of their offsets"):
        ledger(tmp_path).append_all({LOG: wrong})
    assert reader(tmp_path).size == 0


def test_no_leaves_ask_nothing_of_the_disk(tmp_path: Path, calls: WatchedLogCalls) -> None:
    writer = ledger(tmp_path, calls)
    made: list[str] = []
    calls.before = lambda name, _: made.append(name)
    assert writer.append_all({}) == writer.append_all({LOG: []}) == {}
    # The root folder is opened, for the flush that does not come.
    assert set(made) <= {"open_folder", "syncfs", "close"}
    assert not (tmp_path / "ledger").exists()


def test_all_logs_of_a_batch_share_the_flushes(tmp_path: Path) -> None:
    """One for contents, one for names and new checkpoints, one for the checkpoints in place."""
    calls = WatchedLogCalls()
    writer = ledger(tmp_path, calls)
    logs = [LogId(1, TOPIC, partition) for partition in range(12)]
    writer.append_all({log: leaves(0, 3, log) for log in logs})
    made: list[str] = []
    calls.before = lambda name, _: made.append(name)
    files = DurableFiles(tmp_path)
    with writer.appending({log: leaves(3, 40, log) for log in logs}) as batch:
        creations = files.link(batch.files)
        assert made.count("syncfs") == 0
        batch.publish(creations)
    assert made.count("syncfs") == 2
    assert made.count("replace") == 12
    writer.append_all({log: leaves(40, 90, log) for log in logs})
    assert made.count("syncfs") == 2 + 3
    # Compared only: the process that wrote the checkpoint may not have flushed it.
    writer.append_all({log: leaves(40, 90, log) for log in logs})
    assert made.count("syncfs") == 2 + 3 + 1


def test_tiles_are_durable_before_a_checkpoint_has_its_name(tmp_path: Path) -> None:
    calls = WatchedLogCalls()
    writer = ledger(tmp_path, calls)
    writer.append_all({LOG: leaves(0, 5)})
    made: list[tuple[str, object]] = []
    calls.before = lambda name, arguments: made.append((name, arguments[1:2]))
    writer.append_all({LOG: leaves(5, 300)})
    names = [name for name, _ in made]
    flushes = [place for place, name in enumerate(names) if name == "syncfs"]
    links = [place for place, name in enumerate(names) if name == "link_unnamed"]
    (new_checkpoint,) = [place for place, name in enumerate(names) if name == "open_new"]
    (replaced,) = [place for place, name in enumerate(names) if name == "replace"]
    removed = [place for place, name in enumerate(names) if name in {"unlink", "remove_folder"}]
    contents, new_names, replacement = flushes
    assert max(place for place, name in enumerate(names) if name == "open_unnamed") < contents
    assert contents < min(links) <= max(links) < new_checkpoint < new_names
    assert new_names < replaced < replacement < min(removed)


def test_locks_are_taken_in_order_of_name_and_held_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = [LogId(1, TOPIC, 2), LogId(1, TOPIC, 10), LogId(1, "a", 0)]
    writer = ledger(tmp_path)
    taken: list[str] = []
    real = fcntl.flock

    def flock(descriptor: int, operation: int) -> None:
        taken.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with writer.appending({log: leaves(0, 2, log) for log in logs}):
        for log in logs:
            with (
                (tmp_path / log.path / "lock").open() as lock,
                pytest.raises(BlockingIOError),
            ):
                real(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    expected = [str(tmp_path / log.path / "lock") for log in (logs[2], logs[1], logs[0])]
    assert taken == expected


def test_a_batch_that_is_not_published_leaves_no_leaf(tmp_path: Path) -> None:
    writer = ledger(tmp_path)
    writer.append_all({LOG: leaves(0, 5)})
    with writer.appending({LOG: leaves(5, 9)}) as batch:
        assert batch.files
    assert check_whole(tmp_path).size == 5
    assert writer.append_all({LOG: leaves(5, 7)})[LOG].size == 7


def test_another_process_goes_on_and_the_first_one_after_it(tmp_path: Path) -> None:
    first, second = ledger(tmp_path), ledger(tmp_path)
    for start in range(0, 300, 20):
        writer = first if start % 40 else second
        assert writer.append_all({LOG: leaves(start, start + 20)})[LOG].size == start + 20
    whole = tmp_path / "whole"
    whole.mkdir()
    ledger(whole).append_all({LOG: leaves(0, 300)})
    assert on_disk(tmp_path) == on_disk(whole)


def test_two_owners_of_one_log_never_both_append(tmp_path: Path) -> None:
    """A worker that lost its partition without knowing, and the one that has it now."""
    for start in range(0, 120, 12):
        children = []
        for batch in (5, 7):
            child = os.fork()
            if child == 0:
                try:
                    writer = ledger(tmp_path)
                    for at in range(start, start + 12, batch):
                        writer.append_all({LOG: leaves(at, min(at + batch, start + 12))})
                    os._exit(0)
                finally:
                    os._exit(1)
            children.append(child)
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
        assert check_whole(tmp_path).size == start + 12
    whole = tmp_path / "whole"
    whole.mkdir()
    ledger(whole).append_all({LOG: leaves(0, 120)})
    assert on_disk(tmp_path) == on_disk(whole)


def test_of_two_owners_with_other_leaves_one_stops(tmp_path: Path) -> None:
    ledger(tmp_path).append_all({LOG: leaves(0, 5)})

    def zombie() -> None:
        with pytest.raises(IntegrityError):
            ledger(tmp_path).append_all({LOG: leaves(3, 8, body="other")})

    assert in_child(zombie) == 0
    assert check_whole(tmp_path).size == 5


def test_a_checkpoint_put_back_is_refused_by_whoever_saw_a_later_one(tmp_path: Path) -> None:
    writer = ledger(tmp_path)
    writer.append_all({LOG: leaves(0, 256)})
    path = tmp_path / LOG.path / "checkpoint"
    old = path.read_bytes()
    writer.append_all({LOG: leaves(256, 512)})
    path.unlink()
    path.write_bytes(old)
    with pytest.raises(IntegrityError, match="expected at least 512 leaves, found 256"):
        writer.append_all({LOG: leaves(512, 520)})
    assert path.read_bytes() == old


def test_a_log_that_another_rewrote_is_refused_by_whoever_saw_the_first(tmp_path: Path) -> None:
    writer = ledger(tmp_path)
    writer.append_all({LOG: leaves(0, 5)})
    other = tmp_path / "other"
    other.mkdir()
    ledger(other).append_all({LOG: leaves(0, 9, body="other")})
    (tmp_path / LOG.path).rename(tmp_path / "aside")
    (other / LOG.path).rename(tmp_path / LOG.path)
    with pytest.raises(IntegrityError, match="expected the root"):
        writer.append_all({LOG: leaves(9, 10)})


RIGHT_EDGE = [Tile(ENTRIES, 1, 44), Tile(0, 1, 44), Tile(1, 0, 1)]


@pytest.mark.parametrize("tile", RIGHT_EDGE, ids=str)
@pytest.mark.parametrize("what", ["damaged", "missing", "cut"])
def test_a_damaged_right_edge_is_refused(tmp_path: Path, tile: Tile, what: str) -> None:
    ledger(tmp_path).append_all({LOG: leaves(0, 300)})
    path = tile_path(tmp_path, tile)
    if what == "damaged":
        damage(path)
    else:
        content = path.read_bytes()
        path.unlink()
        if what == "cut":
            path.write_bytes(content[:-1])
    before = on_disk(tmp_path)
    with pytest.raises(IntegrityError, match="is not as it was written"):
        ledger(tmp_path).append_all({LOG: leaves(300, 310)})
    assert on_disk(tmp_path) == before


@pytest.mark.parametrize("place", [0, 40, 60, 80, 120, -2])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, place: int) -> None:
    ledger(tmp_path).append_all({LOG: leaves(0, 3)})
    damage(tmp_path / LOG.path / "checkpoint", place)
    before = on_disk(tmp_path)
    for start in (0, 3):
        with pytest.raises(IntegrityError, match="is not as it was written"):
            ledger(tmp_path).append_all({LOG: leaves(start, 9)})
    with pytest.raises(IntegrityError, match="is not as it was written"):
        reader(tmp_path)
    assert on_disk(tmp_path) == before


def test_tiles_without_a_checkpoint_are_refused(tmp_path: Path) -> None:
    ledger(tmp_path).append_all({LOG: leaves(0, 3)})
    (tmp_path / LOG.path / "checkpoint").unlink()
    before = on_disk(tmp_path)
    with pytest.raises(IntegrityError, match="has tiles but no checkpoint"):
        ledger(tmp_path).append_all({LOG: leaves(0, 3)})
    with pytest.raises(IntegrityError, match="has no checkpoint"):
        reader(tmp_path)
    assert on_disk(tmp_path) == before


@pytest.mark.parametrize("tile", [Tile(ENTRIES, 0, 9), Tile(0, 0, 9)], ids=str)
def test_other_bytes_in_the_place_of_a_new_tile_are_never_covered(
    tmp_path: Path, tile: Tile
) -> None:
    ledger(tmp_path).append_all({LOG: leaves(0, 3)})
    tile_path(tmp_path, tile).write_bytes(b"other")
    before = on_disk(tmp_path)
    with pytest.raises(IntegrityError, match=f"expected no {tile}, or one with the same bytes"):
        ledger(tmp_path).append_all({LOG: leaves(3, 9)})
    after = on_disk(tmp_path)
    assert {path: after[path] for path in before} == before
    assert reader(tmp_path).size == 3


@pytest.mark.parametrize("size", [7, 256, 300])
def test_what_the_disk_holds_is_read_back_before_it_is_signed(tmp_path: Path, size: int) -> None:
    for tile in tiles_of_append(0, size):
        root = tmp_path / str(tile).replace("/", "_")
        root.mkdir()
        writer = ledger(root)
        with writer.appending({LOG: leaves(0, size)}) as batch:
            creations = DurableFiles(root).create(batch.files)
            assert set(creations.values()) == {Creation.CREATED}
            damage(tile_path(root, tile))
            with pytest.raises(IntegrityError, match="is not as it was written"):
                batch.publish(creations)
        assert reader(root).size == 0


def test_a_partial_tile_that_stays_is_read_back_too(tmp_path: Path) -> None:
    writer = ledger(tmp_path)
    writer.append_all({LOG: leaves(0, 600)})
    stays = Tile(1, 0, 2)
    damage(tile_path(tmp_path, stays))
    with pytest.raises(IntegrityError, match="is not as it was written"):
        writer.append_all({LOG: leaves(600, 610)})
    damage(tile_path(tmp_path, stays))
    assert reader(tmp_path).size == 600
    assert writer.append_all({LOG: leaves(600, 610)})[LOG].size == 610


def test_a_hash_that_was_computed_wrong_is_not_signed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a flipped bit of memory makes it: the disk holds just what was meant to be written."""
    writer = ledger(tmp_path)
    real = tree_appender.sha256

    def wrong(data: bytes) -> object:
        return real(data + b"\x01" if b'"offset":5,' in data else data)

    monkeypatch.setattr(tree_appender, "sha256", wrong)
    with pytest.raises(IntegrityError, match="expected leaf 5 in tile/entries"):
        writer.append_all({LOG: leaves(0, 9)})
    assert reader(tmp_path).size == 0


def test_a_damaged_tile_that_no_leaf_needs_is_refused(tmp_path: Path) -> None:
    """Of 256 leaves the tile above holds the root itself, which is in nobody's path."""
    ledger(tmp_path).append_all({LOG: leaves(0, 256)})
    damage(tile_path(tmp_path, Tile(1, 0, 1)))
    with pytest.raises(IntegrityError, match="expected the tiles of the root"):
        ledger(tmp_path).append_all({LOG: leaves(256, 258)})


def test_a_log_of_another_store_or_key_is_refused(tmp_path: Path) -> None:
    ledger(tmp_path).append_all({LOG: leaves(0, 3)})
    other = signer(signer_name(STORE_ID), seed=9)
    with pytest.raises(IntegrityError, match="expected a signature of"):
        ledger(tmp_path, signers=[other]).append_all({LOG: leaves(3, 5)})
    (tmp_path / LOG.path).rename(tmp_path / LogId(1, TOPIC, 1).path)
    moved = LogId(1, TOPIC, 1)
    with pytest.raises(IntegrityError, match=f"expected a checkpoint of {moved.origin(STORE_ID)}"):
        ledger(tmp_path).append_all({moved: leaves(3, 5, moved)})


def test_a_new_key_takes_over_with_both_signatures(tmp_path: Path) -> None:
    new = signer(signer_name(STORE_ID), seed=2)
    ledger(tmp_path).append_all({LOG: leaves(0, 3)})
    ledger(tmp_path, signers=[SIGNER, new]).append_all({LOG: leaves(3, 5)})
    note = (tmp_path / LOG.path / "checkpoint").read_bytes()
    assert note.count("—".encode()) == 2
    for key in (SIGNER.key, new.key):
        assert open_checkpoint(note, [key]).size == 5
    ledger(tmp_path, signers=[new]).append_all({LOG: leaves(5, 6)})
    note = (tmp_path / LOG.path / "checkpoint").read_bytes()
    assert open_checkpoint(note, [new.key]).size == 6
    with pytest.raises(EvidenceError):
        open_checkpoint(note, [SIGNER.key])


@pytest.mark.slow
def test_the_last_folder_of_tiles_is_found_where_numbers_get_longer(tmp_path: Path) -> None:
    """Tile 1000 is the first of another folder."""
    writer = ledger(tmp_path)
    size = 1000 * 256
    all_leaves = leaves(0, size + 2)
    writer.append_all({LOG: all_leaves[: size - 1]})
    writer.append_all({LOG: all_leaves[size - 1 : size + 1]})
    found = reader(tmp_path)
    assert (tmp_path / LOG.path / "tile/entries/x001/000.p/1").is_file()
    assert not (tmp_path / LOG.path / "tile/entries/999.p").exists()
    for index in (0, size - 1, size):
        assert found.leaf(index) == all_leaves[index]
    ledger(tmp_path).append_all({LOG: all_leaves[size + 1 :]})


def test_a_reader_goes_on_while_the_writer_does(tmp_path: Path) -> None:
    """Partial tiles of its checkpoint are gone then: wider ones begin with them."""
    writer = ledger(tmp_path)
    for size, later in ((100, 150), (150, 256), (260, 300), (300, 900)):
        writer.append_all({LOG: leaves(0, size)})
        found = reader(tmp_path)
        writer.append_all({LOG: leaves(0, later)})
        assert list(found.entries()) == [each.encode() for each in leaves(0, size)]
        assert found.prove(0).verify(leaf(0).encode(), KEYS).size == size


@pytest.mark.parametrize("name", [NEW_CHECKPOINT_FILE, "tile/0/000.p/2", "tile/entries/000.p/1"])
def test_what_a_killed_process_left_goes(tmp_path: Path, name: str) -> None:
    ledger(tmp_path).append_all({LOG: leaves(0, 300)})
    before = on_disk(tmp_path)
    left = tmp_path / LOG.path / name
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_bytes(b"left")
    ledger(tmp_path).append_all({LOG: leaves(290, 300)})
    assert on_disk(tmp_path) == before


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    ledger(tmp_path).append_all({LOG: leaves(0, 300)})
    for name in ("tile/0/000.p/notes.txt", "tile/0/unexpected.p/1", "tile/0/001.p/999"):
        path = tmp_path / LOG.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"unexpected")
    before = on_disk(tmp_path)
    ledger(tmp_path).append_all({LOG: leaves(290, 300)})
    assert on_disk(tmp_path) == before


def test_the_real_calls_and_the_watched_ones_make_the_same_log(tmp_path: Path) -> None:
    roots = []
    for name, made in (
        ("real", LogSystemCalls()),
        ("group", WatchedLogCalls()),
        ("named", None),
    ):
        root = tmp_path / name
        root.mkdir()
        calls = WRITERS["fallback"]() if made is None else made
        ledger(root, calls).append_all({LOG: leaves(0, 300)})
        roots.append(on_disk(root))
    assert roots[0] == roots[1] == roots[2]


def test_no_reader_outlives_its_batch(tmp_path: Path) -> None:
    """A service hardly ever collects cycles, so nothing that a batch makes may be in one."""
    writer = ledger(tmp_path)
    gc.collect()
    gc.disable()
    try:
        for end in range(1, 101):
            writer.append_all({LOG: leaves(end - 1, end)})
            assert writer.leaves_of({LOG: [0]}) == {(LOG, 0): leaf(0)}
        kept = [each for each in gc.get_objects() if isinstance(each, LogReader | TileHashes)]
        assert kept == []
    finally:
        gc.enable()


def test_what_was_verified_before_may_not_change_in_memory(tmp_path: Path) -> None:
    """Its leaves are not hashed again: the bytes must be those that were."""
    for level in (ENTRIES, 0):
        root = tmp_path / str(level)
        root.mkdir()
        writer = ledger(root)
        writer.append_all({LOG: leaves(0, 5)})
        tree = writer._states.of(LOG).tree
        content = tree._bundle if level == ENTRIES else tree._rows[level].content
        content[3] ^= 1
        with pytest.raises(IntegrityError, match="to begin as it was verified before"):
            writer.append_all({LOG: leaves(5, 9)})
        assert reader(root).size == 5


@pytest.mark.parametrize(("before", "after"), [(200, 210), (250, 600), (256, 300)])
def test_a_leaf_is_read_back_and_hashed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int, after: int
) -> None:
    writer = ledger(tmp_path)
    writer.append_all({LOG: leaves(0, before)})
    hashed: list[bytes] = []

    def counted(leaf: bytes) -> bytes:
        hashed.append(leaf)
        return leaf_hash(leaf)

    monkeypatch.setattr(tiles, "leaf_hash", counted)
    writer.append_all({LOG: leaves(before, after)})
    assert hashed == [each.encode() for each in leaves(before, after)]
    check_whole(tmp_path)


def test_no_folder_is_listed_but_by_the_first_batch(tmp_path: Path) -> None:
    calls = WatchedLogCalls()
    writer = ledger(tmp_path, calls)
    made: list[str] = []
    calls.before = lambda name, _: made.append(name)
    writer.append_all({LOG: leaves(0, 3)})
    assert "list_folder" in made
    made.clear()
    for end in (40, 255, 256, 258, 700):
        writer.append_all({LOG: leaves(0, end)})
    assert "list_folder" not in made
    (tmp_path / "once").mkdir()
    ledger(tmp_path / "once").append_all({LOG: leaves(0, 700)})
    assert on_disk(tmp_path) == on_disk(tmp_path / "once")


def test_what_a_failed_batch_left_goes_with_the_next_one(tmp_path: Path) -> None:
    writer = ledger(tmp_path)
    writer.append_all({LOG: leaves(0, 3)})
    with writer.appending({LOG: leaves(3, 6)}) as batch:
        DurableFiles(tmp_path).link(batch.files)
    writer.append_all({LOG: leaves(3, 9)})
    (tmp_path / "once").mkdir()
    ledger(tmp_path / "once").append_all({LOG: leaves(0, 9)})
    assert on_disk(tmp_path) == on_disk(tmp_path / "once")


@pytest.mark.parametrize(
    ("start", "killed", "sizes"),
    [
        (3, 6, (5, 6, 9)),
        (3, 9, (5, 7, 11)),
        (200, 300, (250, 299, 301)),
        (200, 768, (220, 1100, 1400)),
        (250, 600, (255, 256, 520, 700)),
    ],
)
def test_what_a_killed_batch_left_goes_once_the_log_is_larger_however_the_rest_is_cut(
    tmp_path: Path, start: int, killed: int, sizes: tuple[int, ...]
) -> None:
    store, once = tmp_path / "killed", tmp_path / "once"
    store.mkdir()
    once.mkdir()
    ledger(store).append_all({LOG: leaves(0, start)})
    with ledger(store).appending({LOG: leaves(start, killed)}) as batch:
        DurableFiles(store).link(batch.files)
    restarted = ledger(store)
    for size in sizes:
        restarted.append_all({LOG: leaves(start, size)})
    ledger(once).append_all({LOG: leaves(0, sizes[-1])})
    assert on_disk(store) == on_disk(once)
    restarted = ledger(store)
    restarted.append_all({LOG: leaves(start, sizes[-1])})
    assert on_disk(store) == on_disk(once)
