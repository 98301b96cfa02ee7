"""The logs of a store in a bucket: a checkpoint is one object, swapped by `If-Match`.

Nothing is locked. Of two that believe to own a log the second finds at its swap that the first went
on; its tiles have the same bytes, or are covered by no checkpoint.

Superseded tiles are removed with the swap that follows, as their removal is no step of a batch: one
that stays after the death of a process goes with the first batch of the next.
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
        return sorted(log for epoch in epochs for log in self._objects.names(epoch)[1])

    def with_tiles(self, logs: Iterable[str]) -> set[str]:
        """Return those of `logs` to which anything was ever appended, or was going to be."""
        wanted = list(logs)
        found = self._objects.all(partial(self._objects.is_folder, f"{log}/tile") for log in wanted)
        return {log for log, is_folder in zip(wanted, found, strict=True) if is_folder}

    def heads(self, logs: Iterable[str]) -> dict[str, Head]:
        """Return the head of each of `logs`; one without a checkpoint is left out."""
        wanted = list(logs)
        found = self._objects.all(
            partial(self._objects.get, f"{log}/{CHECKPOINT_FILE}") for log in wanted
        )
        return {
            log: Head(*head) for log, head in zip(wanted, found, strict=True) if head is not None
        }

    def tile(self, log: str, tile: str) -> bytes | None:
        """Return the bytes under the path of a tile; None where there is no such file."""
        try:
            found = self._objects.opened(f"{log}/{tile}")
        except FileNotFoundError:
            return None
        return bytes(found.bytes()) if found.meta["size"] <= TILE_LIMIT_BYTES else None

    def names(self, log: str, folder: str) -> list[str]:
        """Return the names in a folder of a log, in order; none where there is no such folder."""
        found = {path for paths in self._objects.names(f"{log}/{folder}") for path in paths}
        return sorted(path.rpartition("/")[2] for path in found)

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

    def tile(self, log: str, tile: str) -> bytes | None:
        """Return a tile; of this batch's own what the server has acknowledged by their hashes."""
        own = self._files.acknowledged.get(f"{log}/{tile}")
        return super().tile(log, tile) if own is None else own

    def names(self, log: str, folder: str) -> list[str]:
        """Return the names in a folder of a log, without what is superseded."""
        self._objects.all(self._removals())
        return super().names(log, folder)

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
