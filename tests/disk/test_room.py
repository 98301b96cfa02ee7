"""Inodes end before the bytes: it is named so, and seen before."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from pipeline import metrics
from pipeline.consumers.health import measure_room
from pipeline.disk.durable_files import DurableFiles
from pipeline.disk.faults import store_faults
from pipeline.disk.volume import Room, is_disk_writable, room_of
from pipeline.errors import DiskFullError, StoreError
from pipeline.storage.attachments import AttachmentFiles
from pipeline.storage.run_store import RunStore
from pipeline.storage.store import open_store_to_write
from tests.builders import run_request
from tests.cli.command_line import command_line
from tests.disk.mounts import mounted, why_not
from tests.storage.stores import judged_record, make_store, opened

INODES = 60


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """Return a store on a volume with few inodes and much room for bytes."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    options = f"size=50m,nr_inodes={INODES}"
    with mounted(tmp_path / "volume", "-t", "tmpfs", "-o", options, "tmpfs") as volume:
        make_store(volume)
        RunStore(open_store_to_write(volume)).close()
        yield volume


def fill(root: Path, leave: int = 0) -> None:
    """Make empty files beside the store's own until so many inodes are left."""
    names = (root / f"other_{number}" for number in count())
    while room_of(root).free_inodes > leave:
        next(names).touch()


def test_no_inodes_are_named_where_a_batch_finds_none(root: Path) -> None:
    fill(root)
    # Opening the index may find it too.
    with pytest.raises(StoreError) as caught, opened(root) as store:
        store.commit([judged_record(run_request())])
    said = str(caught.value)
    assert said.startswith(f"The store {root} cannot be used: No inodes left on device")
    assert "a volume with more inodes" in said
    assert not is_disk_writable(root)


def test_no_inodes_are_named_where_an_upload_finds_none(root: Path) -> None:
    attachments = AttachmentFiles(DurableFiles.untried(root))
    fill(root)
    with pytest.raises(DiskFullError, match=r"\(No inodes left on device\)"):
        attachments.begin()


def test_an_attachment_that_is_put_without_an_inode_left_names_the_store(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    blob = root.parent / "blob"
    blob.write_bytes(b"G1 X1")
    fill(root)
    with contextmanager(command_line)(root, monkeypatch, capsysbinary) as rmos:
        done = rmos("attachments", "put", str(blob))
    assert done.status == 6
    assert f"blob in the store {root} (No inodes left on device): remove files" in done.err


def test_status_names_inodes_where_none_is_left(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    fill(root)
    with contextmanager(command_line)(root, monkeypatch, capsysbinary) as rmos:
        done = rmos("store", "status", "--json")
    assert f"Only 0 of {INODES} inodes are left" in done.err
    # The index cannot be read, as SQLite makes its log beside it.
    assert done.status == 6
    assert "No inodes left on device" in done.err
    assert done.out == b""


@pytest.mark.parametrize(("leave", "warned"), [(30, False), (5, True)])
def test_status_and_metrics_warn_before(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
    leave: int,
    *,
    warned: bool,
) -> None:
    fill(root, leave)
    with contextmanager(command_line)(root, monkeypatch, capsysbinary) as rmos:
        done = rmos("store", "status", "--json")
    assert done.status == 0
    assert done.document["free_inodes"] == leave
    assert (f"Only {leave} of {INODES} inodes are left" in done.err) is warned
    measure_room(root)
    told = generate_latest(metrics.REGISTRY).decode()
    assert f"rmos_free_inodes {leave:.1f}" in told
    assert f"rmos_inodes {INODES:.1f}" in told


def test_a_volume_without_a_number_of_inodes_has_enough() -> None:
    room = Room(free_bytes=1, free_inodes=0, inodes=0)
    assert (room.has_no_inodes, room.has_few_inodes) == (False, False)


def test_a_full_disk_with_inodes_is_named_as_ever(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with (
        pytest.raises(StoreError, match=r"No space left on device; .*free some space"),
        store_faults(tmp_path),
    ):
        raise full
