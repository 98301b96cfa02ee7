"""The volume of a store: its room, and whether we may write there.

Many file systems have a fixed number of inodes. Small runs use them up before the bytes, and then
the kernel reports no space left, as for a full disk: so the room of a volume is both.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.disk.system_calls import SystemCalls, supports_unnamed_files

INDEX_NAME: Final = "index.sqlite3"
NOT_OURS: Final = {"kafka", "lost+found"}
"""Folders at the top of a store that the local broker and the file system have there."""

SCARCE: Final = 0.1
"""Share of the inodes that is left when it is time to act."""


@dataclass(frozen=True, slots=True)
class Room:
    """What a volume has left.

    Attributes:
        free_bytes: For users other than root.
        free_inodes: Likewise.
        inodes: All of them; 0 where there is no fixed number.
    """

    free_bytes: int
    free_inodes: int
    inodes: int
    is_read_only: bool = False

    @property
    def has_no_inodes(self) -> bool:
        """Whether no file can be made any more, however small."""
        return self.inodes > 0 and self.free_inodes == 0

    @property
    def has_few_inodes(self) -> bool:
        """Whether they will soon be used up."""
        return self.inodes > 0 and self.free_inodes < SCARCE * self.inodes


def room_of(path: Path) -> Room:
    """Return what the volume at `path` has left."""
    space = os.statvfs(path)
    is_read_only = bool(space.f_flag & os.ST_RDONLY)
    free_bytes = space.f_bavail * space.f_frsize
    return Room(free_bytes, space.f_favail, space.f_files, is_read_only=is_read_only)


def is_disk_writable(root: Path) -> bool:
    """Return whether the store's disk is mounted, not full, and all of the store ours to write.

    A command that was run as another user may have left folders of its own; only what is at the
    top of the store is looked at.
    """
    try:
        room = room_of(root)
        ours = all(os.access(path, os.W_OK) for path in (root, *_written_in(root)))
    except OSError:
        return False
    return ours and room.free_bytes > 0 and not room.has_no_inodes and not room.is_read_only


def _written_in(root: Path) -> Iterator[Path]:
    """Yield what lies at the top of a store and is written to: its folders and its index.

    Raises:
        OSError: The disk failed.
    """
    with os.scandir(root) as entries:
        for entry in entries:
            is_folder = entry.is_dir(follow_symlinks=False) and entry.name not in NOT_OURS
            if is_folder or entry.name.startswith(INDEX_NAME):
                yield Path(entry.path)


def has_group_commit(root: Path) -> bool | None:
    """Return whether the file system supports the group commit; None for who may not try it.

    Raises:
        OSError: The disk failed.
    """
    if room_of(root).is_read_only or not os.access(root, os.W_OK):
        return None
    return supports_unnamed_files(root, SystemCalls())
