"""The logs of a store in a bucket: a checkpoint is one object, swapped by `If-Match`.

Nothing is locked. Of two that believe to own a log the second finds at its swap that the first went
on; its tiles have the same bytes, or are covered by no checkpoint.

Superseded tiles are removed with the swap that follows, as their removal is no step of a batch: one
that stays after the death of a process goes with the next start of one.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial

from obstore.exceptions import BaseError

from pipeline.bucket.files import BucketFiles
from pipeline.bucket.objects import Call, Objects
from pipeline.core.store.log_store import (
    CHECKPOINT_FILE,
    LEDGER_FOLDER,
    TILE_LIMIT_BYTES,
    Head,
)
from pipeline.errors import LogMovedError


class BucketLogs:
    """The logs of one store in a bucket."""

    is_shared = True

    def __init__(self, objects: Objects, files: BucketFiles) -> None:
        """Prepare; nothing is asked.

        Args:
            objects: Of the bucket.
            files: Which have created the tiles of a batch.
        """
        self._objects = objects
        self._files = files
        self._superseded: list[str] = []

    def close(self) -> None:
        """Remove what the last batch left superseded."""
        self._objects.all(self._removals())

    def faults(self) -> AbstractContextManager[None]:
        """Translate a fault of the bucket into StoreError while the block runs."""
        return self._objects.faults()

    def logs(self) -> list[str]:
        """Return the folders that logs may have, of all epochs, in order."""
        epochs = self._objects.names(LEDGER_FOLDER)[1]
        found = self._objects.each(self._objects.listed, epochs)
        return sorted(log for _, folders in found.values() for log in folders)

    def with_tiles(self, logs: Iterable[str]) -> set[str]:
        """Return those of `logs` to which anything was ever appended, or was going to be."""
        found = self._objects.each(self._objects.is_folder, (f"{log}/tile" for log in logs))
        return {path.removesuffix("/tile") for path, is_folder in found.items() if is_folder}

    def heads(self, logs: Iterable[str]) -> dict[str, Head]:
        """Return the head of each of `logs`; one without a checkpoint is left out."""
        paths = {f"{log}/{CHECKPOINT_FILE}": log for log in logs}
        found = self._objects.each(self._objects.get, paths)
        return {paths[path]: Head(*head) for path, head in found.items() if head is not None}

    def tiles(self, paths: Iterable[str]) -> dict[str, bytes]:
        """Return the bytes of tiles by their paths; what is not there is left out."""
        limited = partial(self._objects.get, limit_bytes=TILE_LIMIT_BYTES)
        found = self._objects.each(limited, paths)
        return {path: tile.content for path, tile in found.items() if tile is not None}

    def names(self, folders: Iterable[str]) -> dict[str, list[str]]:
        """Return the names in each folder, in order; none where there is no such folder."""
        found = self._objects.each(self._objects.listed, folders)
        return {
            folder: sorted({path.rpartition("/")[2] for path in (*objects, *below)})
            for folder, (objects, below) in found.items()
        }

    @contextmanager
    def locked(self, logs: Sequence[str]) -> Iterator["BucketLogsToWrite"]:
        """Lock nothing: a swap finds out whether another went on."""
        del logs
        self._files.acknowledged = {}
        yield BucketLogsToWrite(self._objects, self._files, self._superseded)

    def _removals(self) -> list[Call[None]]:
        removals: list[Call[None]] = [partial(self._remove, path) for path in self._superseded]
        self._superseded.clear()
        return removals

    async def _remove(self, path: str) -> None:
        # No part of the log: it goes another time.
        with suppress(BaseError):
            await self._objects.delete(path)


class BucketLogsToWrite(BucketLogs):
    """Logs for one batch, which others may write too."""

    def __init__(self, objects: Objects, files: BucketFiles, superseded: list[str]) -> None:
        """Go on with what earlier batches left superseded."""
        super().__init__(objects, files)
        self._superseded = superseded

    def tiles(self, paths: Iterable[str]) -> dict[str, bytes]:
        """Return tiles; of this batch's own what the server has acknowledged by their hashes."""
        wanted, own = list(paths), self._files.acknowledged
        return {path: own[path] for path in wanted if path in own} | super().tiles(
            path for path in wanted if path not in own
        )

    def names(self, folders: Iterable[str]) -> dict[str, list[str]]:
        """Return the names in each folder, without what is superseded."""
        self._objects.all(self._removals())
        return super().names(folders)

    def swap(self, swaps: Mapping[str, tuple[Head, bytes]]) -> dict[str, Head]:
        """Replace checkpoints, all at once; return the new heads.

        Raises:
            LogMovedError: A log has another head by now. Others may have been swapped.
        """
        swapped: dict[str, Head] = {}
        calls: list[Call[None]] = [
            partial(self._swap, log, *swap, swapped) for log, swap in swaps.items()
        ]
        self._objects.all(calls + self._removals())
        return {log: swapped[log] for log in swaps}

    async def _swap(self, log: str, head: Head, note: bytes, swapped: dict[str, Head]) -> None:
        path = f"{log}/{CHECKPOINT_FILE}"
        if note == head.note or not head.version:
            # Nothing is sent, but nobody has locked the log: is it as it was?
            found = await self._objects.get(path)
            is_ours = found is not None and Head(*found) == head
        else:
            found = await self._objects.swap(path, note, head.version)
            # Signatures are deterministic: who has signed the same leaves has the same note.
            is_ours = found is not None and found.content == note
        if found is None or not is_ours:
            raise LogMovedError(
                f"Another process went on with the log {log} meanwhile; nothing was "
                "acknowledged; start again."
            )
        swapped[log] = Head(*found)

    def remove(self, log: str, folder: str, names: Sequence[str], *, and_folder: bool) -> None:
        """Remove superseded tiles, with the next swap; a folder is nothing of its own."""
        del and_folder
        self._superseded += [f"{log}/{folder}/{name}" for name in names]

    def drop_unfinished(self, log: str) -> None:
        """Do nothing: a swap is one step."""
