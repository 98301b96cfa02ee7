"""A store without its index: what it keeps for good. The index is derived from it."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from pipeline.core.store.files import Files
from pipeline.core.store.identity import StoreIdentity
from pipeline.core.store.log_store import LogStore


class StoreLock(Protocol):
    """The lock of a store, which each batch holds, of any process and host."""

    def alone(self) -> AbstractContextManager[None]:
        """Let no batch begin while the block runs; those on their way end first.

        The batches of this process are no exception: in the block they would wait for ever.

        Raises:
            StoreNotReadyError: We may not write into the store.
            StoreAwayError: The wait was too long, or the lock was lost in the block.
        """

    def key_in_force(self) -> str | None:
        """Return the public key that every host signs by; None where the key's file decides."""

    def put_in_force(self, key: str) -> None:
        """Refuse each batch by another key from now on; who calls it is alone."""

    def between_batches(self) -> AbstractContextManager[None]:
        """Do the same for a moment, to look: it needs no right to write."""


def _nothing() -> None:
    """Close nothing."""


@dataclass(frozen=True, slots=True)
class StoreContents:
    """The files and the logs of one store.

    Attributes:
        identity: Which store it is.
        files: Its files.
        logs: Its logs.
        lock: For what concerns the whole store.
        let_go: Closes what they have open; on a disk that is nothing.
    """

    identity: StoreIdentity
    files: Files
    logs: LogStore
    lock: StoreLock
    let_go: Callable[[], None] = field(default=_nothing, kw_only=True)

    @property
    def name(self) -> str:
        """Which store it is, for people: its folder, where it is one."""
        return self.files.name

    def faults(self) -> AbstractContextManager[None]:
        """Translate a fault of the store into StoreError while the block runs."""
        return self.files.faults()
