"""The system calls of the ledger: those of the durable writer, and three that change names."""

import os

from pipeline.disk.system_calls import SystemCalls


class LogCalls(SystemCalls):
    """What the ledger asks of the kernel. Every method raises OSError."""

    def replace(self, old: str, new: str, folder: int) -> None:
        """Give a file the name of another in the same folder, which goes; at once (rename(2))."""
        os.replace(old, new, src_dir_fd=folder, dst_dir_fd=folder)

    def list_folder(self, folder: int) -> list[str]:
        """Return the names in a folder, in no order."""
        return os.listdir(folder)

    def remove_folder(self, name: str, parent: int) -> None:
        """Remove an empty folder."""
        os.rmdir(name, dir_fd=parent)
