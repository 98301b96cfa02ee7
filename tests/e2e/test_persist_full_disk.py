"""A store whose disk is full: nothing is acknowledged, and all is stored once there is room."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.broker.local.broker import LocalBroker
from pipeline.settings import Settings
from tests.builders import run_request
from tests.e2e.kafka_reading import committed, produce, sending, wait_until_consumed
from tests.e2e.prepared_store import prepare_store
from tests.e2e.store_audit import audit_store
from tests.e2e.worker_processes import WorkerPool, only_sentence

pytestmark = pytest.mark.e2e

DISK_BYTES = 4 * 1024 * 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    size = f"size={DISK_BYTES}"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.decode()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture
def full_settings(settings: Settings, broker: LocalBroker, small_disk: Path) -> Settings:
    found = settings.model_copy(update={"data_dir": small_disk / "store"})
    prepare_store(found, broker.cluster_id)
    return found


def fill(disk: Path, left_bytes: int) -> Path:
    """Fill the disk but for `left_bytes`."""
    filler = disk / "filler"
    space = os.statvfs(disk)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, space.f_bavail * space.f_frsize - left_bytes)
    return filler


# The first leaves room for the index and not for the files; the last for nothing at all.
@pytest.mark.slow
@pytest.mark.parametrize("left_bytes", [1_000_000, 300_000, 0])
async def test_a_full_disk_stops_the_worker_and_a_start_with_room_stores_everything(
    full_settings: Settings, small_disk: Path, workers: WorkerPool, left_bytes: int
) -> None:
    settings = full_settings
    filler = fill(small_disk, left_bytes)
    big = {"gcode_text": "G1 X1 Y1\n" * 2000}
    await produce(
        settings, (sending(run_request(run_id=f"run_{n}", outputs=big)) for n in range(100))
    )
    for _ in range(2):
        worker = workers.start(settings)
        assert await worker.ended() == 6
        said = only_sentence(worker.text)
        assert str(settings.data_dir) in said
        # The index tells of its own file, the files of the disk.
        assert "free some space" in said
        assert "nothing was acknowledged" in said
        assert "Traceback" not in worker.text
    assert sum((await committed(settings)).values()) < 100

    filler.unlink()
    worker = workers.start(settings)
    await wait_until_consumed(settings, check=worker.check)
    assert await worker.stop() == 0
    audit = await audit_store(settings)
    audit.assert_whole()
    assert audit.rows.keys() == {f"run_{n}" for n in range(100)}
