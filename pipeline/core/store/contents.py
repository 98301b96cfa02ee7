"""A store without its index: what it keeps for good. The index is derived from it."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from pipeline.core.store.files import Files
from pipeline.core.store.identity import StoreIdentity
from pipeline.core.store.log_store import LogStore


def _nothing() -> None:
    """Close nothing."""


@dataclass(frozen=True, slots=True)
class StoreContents:
    """The files and the logs of one store.

    Attributes:
        identity: Which store it is.
        files: Its files.
        logs: Its logs.
        let_go: Closes what they have open; on a disk that is nothing.
    """

    identity: StoreIdentity
    files: Files
    logs: LogStore
    let_go: Callable[[], None] = field(default=_nothing, kw_only=True)

    @property
    def name(self) -> str:
        """Which store it is, for people: its folder, where it is one."""
        return self.files.name

    def faults(self) -> AbstractContextManager[None]:
        """Translate a fault of the store into StoreError while the block runs."""
        return self.files.faults()
