"""The volume of a store, which one host has at a time.

A host is a folder of the test, `srv/rmos` in it its mount point. A volume is an ext4 file system in
an image, attached by a loop device, where this machine can do that. Elsewhere it is a folder that
is renamed: what a host has in memory alone cannot be lost then.
"""

import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.disk.mounts import run_program, why_not

IMAGE_BYTES = 96 << 20
# linux/fs.h, EXT4_IOC_SHUTDOWN: _IOR('X', 125, __u32), and its flag for "write nothing more".
_SHUTDOWN = (2 << 30) | (4 << 16) | (ord("X") << 8) | 125
_NO_LOG_FLUSH = struct.pack("I", 2)


class BlockVolume:
    """A volume as a provider gives it; `device` outlives every host."""

    def __init__(self, folder: Path, *features: str) -> None:
        self.device = folder / "volume.img"
        with self.device.open("wb") as file:
            file.truncate(IMAGE_BYTES)
        run_program("mkfs.ext4", "-q", "-F", "-i", "4096", *features, str(self.device))
        self._at: Path | None = None

    def attach(self, mount_point: Path) -> None:
        """Attach and mount it; the journal of one that was cut off is replayed."""
        assert self._at is None, f"attached at {self._at}"
        run_program("mount", "-o", "loop", str(self.device), str(mount_point))
        self._at = mount_point

    def detach(self) -> None:
        """Unmount it in order; refused while a file is open."""
        run_program("umount", str(self._at))
        self._at = None

    def fail(self) -> None:
        """Let every access from now on fail, and nothing in the host's memory reach the volume."""
        descriptor = os.open(str(self._at), os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, _NO_LOG_FLUSH)
        finally:
            os.close(descriptor)

    def host_dies(self) -> None:
        """Detach it from a host that is off: nobody unmounted it, and its memory is gone."""
        self.fail()
        self.detach()
        assert self.needs_recovery, "nothing was lost"

    @property
    def needs_recovery(self) -> bool:
        """Whether it was cut off, not unmounted."""
        words = ["dumpe2fs", "-h", str(self.device)]
        told = subprocess.run(words, capture_output=True, text=True, check=True)
        return "needs_recovery" in told.stdout

    def close(self) -> None:
        if self._at is not None:
            subprocess.run(["umount", "--lazy", str(self._at)], check=False)


class MovedFolder:
    """The stand-in where nothing can be mounted: the store's folder, renamed."""

    def __init__(self, folder: Path) -> None:
        self.device = folder / "volume"
        self.device.mkdir()
        self._at: Path | None = None

    def attach(self, mount_point: Path) -> None:
        assert self._at is None, f"attached at {self._at}"
        # Refused by the system where something is in it.
        self.device.rename(mount_point)
        self._at = mount_point

    def detach(self) -> None:
        assert self._at is not None
        self._at.rename(self.device)
        self._at.mkdir()
        self._at = None

    def host_dies(self) -> None:
        self.detach()

    def close(self) -> None:
        """Leave it; it goes with the folder of the test."""


Volume = BlockVolume | MovedFolder

BLOCK, FOLDER = "block volume", "folder that is renamed"


@contextmanager
def volume_of(kind: str, folder: Path, *features: str) -> Iterator[Volume]:
    """Give a new volume; skip the test, with the reason, where there can be none of its kind."""
    if kind == FOLDER:
        yield MovedFolder(folder)
        return
    reason = why_not("mkfs.ext4", "dumpe2fs")
    if reason is not None:
        pytest.skip(f"no block volume: {reason}")
    volume = BlockVolume(folder, *features)
    trial = folder / "trial"
    trial.mkdir()
    try:
        volume.attach(trial)
        volume.detach()
    except OSError as error:
        pytest.skip(f"no block volume: {error}")
    try:
        yield volume
    finally:
        volume.close()
