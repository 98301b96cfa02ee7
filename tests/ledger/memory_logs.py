"""Logs in memory, for tests: no locks, and a swap that finds out that another went on."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from pipeline.core.store.log_store import CHECKPOINT_FILE, LEDGER_FOLDER, Head
from pipeline.errors import LogMovedError
from tests.storage.memory_files import MemoryFiles


class MemoryLogs:
    """The logs among some files in memory; each swap gives a checkpoint another version."""

    is_shared = True

    def __init__(self, files: MemoryFiles) -> None:
        self._contents = files.contents
        self._swaps: dict[str, int] = {}

    def faults(self) -> AbstractContextManager[None]:
        """Translate nothing."""
        return nullcontext()

    def logs(self) -> list[str]:
        """Return the folders two below that of the ledger."""
        parts = (path.split("/") for path in self._contents)
        return sorted({"/".join(each[:3]) for each in parts if each[0] == LEDGER_FOLDER})

    def with_tiles(self, logs: Iterable[str]) -> set[str]:
        """Return those with a path that begins with that of a tile."""
        starts = {path.partition("/tile/")[0] for path in self._contents if "/tile/" in path}
        return starts & set(logs)

    def heads(self, logs: Iterable[str]) -> dict[str, Head]:
        """Return each checkpoint with its version."""
        return {
            log: Head(note, str(self._swaps.get(log, 0)))
            for log in logs
            if (note := self._contents.get(f"{log}/{CHECKPOINT_FILE}")) is not None
        }

    def tiles(self, paths: Iterable[str]) -> dict[str, bytes]:
        """Return what has these paths."""
        return {path: self._contents[path] for path in paths if path in self._contents}

    def names(self, folders: Iterable[str]) -> dict[str, list[str]]:
        """Return the next name of every path below each folder."""
        return {folder: self._names(folder) for folder in folders}

    def _names(self, folder: str) -> list[str]:
        start = f"{folder}/"
        below = (path.removeprefix(start) for path in self._contents if path.startswith(start))
        return sorted({path.partition("/")[0] for path in below})

    @contextmanager
    def locked(self, logs: Sequence[str]) -> Iterator["MemoryLogs"]:
        """Lock nothing, as no bucket can."""
        del logs
        yield self

    def swap(self, swaps: Mapping[str, tuple[Head, bytes]]) -> dict[str, Head]:
        """Compare and swap each by itself, as a bucket does."""
        for log, (head, note) in swaps.items():
            if self.heads([log]).get(log) != head:
                raise LogMovedError(f"the log {log} went on")
            if note != head.note:
                self._contents[f"{log}/{CHECKPOINT_FILE}"] = note
                self._swaps[log] = self._swaps.get(log, 0) + 1
        return self.heads(swaps)

    def remove(self, log: str, folder: str, names: Sequence[str], *, and_folder: bool) -> None:
        """Remove these names; folders are nothing of their own."""
        del and_folder
        for name in names:
            self._contents.pop(f"{log}/{folder}/{name}", None)

    def drop_unfinished(self, log: str) -> None:
        """Do nothing: a swap is one step."""
