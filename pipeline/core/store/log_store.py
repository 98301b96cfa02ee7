"""The logs of a store: tiles that never change, and checkpoints that are swapped for later ones.

A log is named by its folder, such as `ledger/1/rmos.runs.requests-0`.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Final, NamedTuple, Protocol

LEDGER_FOLDER: Final = "ledger"
CHECKPOINT_FILE: Final = "checkpoint"

TILE_LIMIT_BYTES: Final = 256 * (2 + 0xFFFF)
"""Of a bundle of the longest leaves, each behind its length; a checkpoint has far less."""


class Head(NamedTuple):
    """The checkpoint of a log, as the store holds it.

    Attributes:
        note: The signed checkpoint.
        version: What the store compares beside it when it swaps; nothing on a disk.
    """

    note: bytes
    version: str = ""


class Logs(Protocol):
    """Logs to read.

    Attributes:
        is_shared: Whether many hosts write them: nothing is locked, a swap finds out who went on,
            and each question is a round trip.
    """

    is_shared: bool

    def faults(self) -> AbstractContextManager[None]:
        """Translate a fault of the store into StoreError while the block runs."""

    def heads(self, logs: Iterable[str]) -> dict[str, Head]:
        """Return the head of each of `logs`; one without a checkpoint is left out."""

    def tiles(self, paths: Iterable[str]) -> dict[str, bytes]:
        """Return the bytes of tiles by their paths; what is not there is left out."""

    def names(self, folders: Iterable[str]) -> dict[str, list[str]]:
        """Return the names in each folder, in order; none where there is no such folder."""


class LockedLogs(Logs, Protocol):
    """Logs that nobody else writes, where the store has locks; else a swap finds out."""

    def swap(self, swaps: Mapping[str, tuple[Head, bytes]]) -> dict[str, Head]:
        """Replace checkpoints; return the new heads. All names in the store are durable then.

        Args:
            swaps: For each log the head that it must have, and the note that takes its place; that
                of the head again where the log stays as it is.

        Raises:
            LogMovedError: A log has another head by now. Others may have been swapped.
        """

    def remove(self, log: str, folder: str, names: Sequence[str], *, and_folder: bool) -> None:
        """Remove superseded tiles of one folder, and the folder; what is not there is as removed.

        Args:
            log: The log.
            folder: In it.
            names: Of the tiles.
            and_folder: Whether the folder goes too, unless something else is in it.
        """

    def drop_unfinished(self, log: str) -> None:
        """Remove what a process that died in a swap has left."""


class LogStore(Logs, Protocol):
    """The logs of one store. One thread at a time appends; any number may read."""

    def logs(self) -> list[str]:
        """Return the folders that logs may have, of all epochs, in order."""

    def with_tiles(self, logs: Iterable[str]) -> set[str]:
        """Return those of `logs` to which anything was ever appended, or was going to be."""

    def locked(self, logs: Sequence[str]) -> AbstractContextManager[LockedLogs]:
        """Keep others from writing `logs` while the block runs, locked in this order."""
