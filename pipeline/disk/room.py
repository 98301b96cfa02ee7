"""How much room the volume of a store has left: for bytes, and for files, each of them an inode.

Many file systems have a fixed number of inodes. Small runs use them up before the bytes, and then
the kernel says that no space is left, as it does of a full disk.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SCARCE: Final = 0.1
"""Share of the inodes that is left when it is time to act."""


@dataclass(frozen=True, slots=True)
class Room:
    """What a volume has left.

    Attributes:
        free_bytes: For whoever is not root.
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
    """Return what the volume at `path` has left.

    Raises:
        OSError: The disk failed.
    """
    space = os.statvfs(path)
    is_read_only = bool(space.f_flag & os.ST_RDONLY)
    free_bytes = space.f_bavail * space.f_frsize
    return Room(free_bytes, space.f_favail, space.f_files, is_read_only=is_read_only)
