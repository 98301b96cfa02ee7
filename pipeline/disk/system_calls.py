"""The system calls of the durable writer, one method each, so that a test can fail any of them."""

import ctypes
import errno
import os
import stat
from pathlib import Path

_UNNAMED = getattr(os, "O_TMPFILE", 0)
_NOT_SUPPORTED = {errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL, errno.ENOSYS}
_AT_EMPTY_PATH = 0x1000
_libc = ctypes.CDLL(None, use_errno=True)


class SystemCalls:
    """What the durable writer asks of the kernel. Every method raises OSError."""

    def open_folder(self, name: str, parent: int | None = None) -> int:
        """Open a folder; relative to the folder descriptor `parent` if given.

        Below a parent never through a symbolic link, which could lead out of the file system
        that is flushed.
        """
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        if parent is not None:
            flags |= os.O_NOFOLLOW
        return os.open(name, flags, dir_fd=parent)

    def make_folder(self, name: str, parent: int, mode: int) -> None:
        """Make a folder under the folder descriptor `parent`."""
        os.mkdir(name, mode, dir_fd=parent)

    def open_unnamed(self, folder: int, mode: int = 0o600) -> int:
        """Open a new file that has no name yet, on the file system of `folder`.

        Never with O_EXCL, which would forbid giving it a name later (open(2)).

        Args:
            folder: Descriptor of a folder.
            mode: What the umask, or a default ACL of the folder, leaves of it is the file's mode.
        """
        if not _UNNAMED:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return os.open(".", _UNNAMED | os.O_WRONLY | os.O_CLOEXEC, mode, dir_fd=folder)

    def open_new(self, name: str, folder: int) -> int:
        """Make and open a file that must not exist yet."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return os.open(name, flags, 0o600, dir_fd=folder)

    def open_existing(self, name: str, folder: int | None = None) -> int:
        """Open an existing file for reading; relative to the folder descriptor if given.

        Not through a symbolic link under this name, and without waiting: a pipe in place of the
        file would otherwise block the caller until something is written to it.
        """
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        return os.open(name, flags, dir_fd=folder)

    def write(self, descriptor: int, content: memoryview) -> int:
        """Write some of `content`; return how many bytes."""
        return os.write(descriptor, content)

    def write_all(self, descriptor: int, content: bytes) -> None:
        """Write all of `content`, by as many writes as it takes."""
        written = 0
        while written < len(content):
            written += self.write(descriptor, memoryview(content)[written:])

    def mode_of(self, descriptor: int) -> int:
        """Return the mode of an open file."""
        return stat.S_IMODE(os.fstat(descriptor).st_mode)

    def set_mode(self, descriptor: int, mode: int) -> None:
        """Set the mode, whatever the umask."""
        os.fchmod(descriptor, mode)

    def link_unnamed(self, descriptor: int, name: str, folder: int) -> None:
        """Give an unnamed file its name. Link, unlike rename, refuses an existing name."""
        # Linux 6.10 and later let who opened a file link it by its descriptor, without the way
        # through /proc, which costs a fifth of a file.
        path = os.fsencode(name)
        if _libc.linkat(descriptor, b"", folder, path, _AT_EMPTY_PATH) == 0:
            return
        # An older kernel, or one that finds other rights than those of the opener, finds nothing.
        if (number := ctypes.get_errno()) != errno.ENOENT:
            raise OSError(number, os.strerror(number), f"descriptor {descriptor}", None, name)
        # The folder descriptors make Python call linkat(2) with AT_SYMLINK_FOLLOW; plain
        # link(2) would try to link the entry of /proc itself.
        os.link(
            f"/proc/self/fd/{descriptor}",
            name,
            src_dir_fd=folder,
            dst_dir_fd=folder,
            follow_symlinks=True,
        )

    def link_named(self, old: str, new: str, source: int, target: int) -> None:
        """Give a file a second name in the folder `target`; refuses an existing name."""
        os.link(old, new, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)

    def unlink(self, name: str, folder: int) -> None:
        """Remove a name of a temporary file."""
        os.unlink(name, dir_fd=folder)

    def syncfs(self, descriptor: int) -> None:
        """Make all of a file system durable; reports earlier write-back errors (syncfs(2))."""
        if _libc.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def fsync(self, descriptor: int) -> None:
        """Make one file or folder durable."""
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        """Close a descriptor."""
        os.close(descriptor)


class LogSystemCalls(SystemCalls):
    """The system calls of logs: those of the durable writer, and three that change names."""

    def replace(self, old: str, new: str, folder: int) -> None:
        """Give a file the name of another in the same folder, which goes; at once (rename(2))."""
        os.replace(old, new, src_dir_fd=folder, dst_dir_fd=folder)

    def list_folder(self, folder: int) -> list[str]:
        """Return the names in a folder, in no order."""
        return os.listdir(folder)

    def remove_folder(self, name: str, parent: int) -> None:
        """Remove an empty folder."""
        os.rmdir(name, dir_fd=parent)


def supports_unnamed_files(root: Path, calls: SystemCalls) -> bool:
    """Try what the group commit needs: a file without a name, and the flush of a file system."""
    folder = calls.open_folder(str(root))
    try:
        calls.close(calls.open_unnamed(folder))
        calls.syncfs(folder)
    except (OSError, AttributeError) as error:
        if isinstance(error, OSError) and error.errno not in _NOT_SUPPORTED:
            raise
        return False
    finally:
        calls.close(folder)
    return True
