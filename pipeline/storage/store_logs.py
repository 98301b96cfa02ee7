"""All logs of a store, opened for reading: each at one checkpoint that a trusted key signed."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.disk.faults import store_faults
from pipeline.disk.store_identity import read_store
from pipeline.ledger.folder import find_logs
from pipeline.ledger.log_id import LogId
from pipeline.ledger.reader import LogReader
from pipeline.ledger.tlog.notes import VerifierKey


class StoreLogs:
    """The logs of one store, of all its epochs, as they stand when each is first asked for.

    Attributes:
        root: Folder of the store.
        store_id: Of the store.
        keys: Whose checkpoints count.
    """

    def __init__(self, root: Path, keys: Sequence[VerifierKey]) -> None:
        """Look at the store at `root`.

        Raises:
            StoreNotReadyError: There is no store.
            StoreError: The disk failed.
        """
        self.root = root
        self.store_id = read_store(root).store_id
        self.keys = keys
        self._opened: dict[LogId, LogReader] = {}

    def ids(self) -> list[LogId]:
        """Return the logs that are there, in order.

        Raises:
            StoreError: The disk failed.
        """
        with store_faults(self.root):
            return sorted(find_logs(self.root))

    def open(self, log: LogId) -> LogReader:
        """Return a log at the checkpoint that it had when it was first asked for.

        Raises:
            IntegrityError: There is no checkpoint, or not one of this log by a trusted key.
            StoreError: The disk failed.
        """
        if log not in self._opened:
            self._opened[log] = LogReader.open(self.root, log, self.store_id, self.keys)
        return self._opened[log]

    def open_all(self) -> Iterator[LogReader]:
        """Yield every log, opened.

        Raises:
            IntegrityError: As `open`.
            StoreError: As `open`.
        """
        # All checkpoints first, so that they are of about one moment.
        yield from [self.open(log) for log in self.ids()]

    def by_origin(self) -> dict[str, LogId]:
        """Return the logs that are there by their origins."""
        return {log.origin(self.store_id): log for log in self.ids()}
