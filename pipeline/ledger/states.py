"""The logs as one process knows them, each at the checkpoint that it has last seen.

On one disk a head is read under the lock of its log, in each batch. Of many hosts none locks a log,
and a question is a round trip. So a process goes on from the head that it has seen or made last,
and the swap finds out whether that is still the head.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from pipeline.core.store.log_store import Head, LockedLogs, Logs, LogStore
from pipeline.ledger.log_id import LogId
from pipeline.ledger.reader import LogReader
from pipeline.ledger.stored_log import StoredLog, fetch_tiles, ledger_faults
from pipeline.ledger.tlog import EvidenceError
from pipeline.ledger.tlog.append import TreeAppender
from pipeline.ledger.tlog.checkpoints import Checkpoint, open_checkpoint
from pipeline.ledger.tlog.notes import VerifierKey
from pipeline.ledger.tlog.reads import tiles_of_end
from pipeline.ledger.tlog.tiles import Tile


@dataclass(frozen=True, slots=True)
class LogState:
    """A log at a checkpoint.

    Attributes:
        head: The signed checkpoint, as the store holds it.
        tree: The log, to be copied and appended to.
        next_offset: One more than that of the last leaf.
        swept: Whether no partial tile is there but those of this checkpoint.
        verified: The partial tiles, by level, the bundle too: as the store held them, with each
            leaf hashed and followed to the root.
    """

    head: Head
    checkpoint: Checkpoint
    tree: TreeAppender
    next_offset: int
    swept: bool
    verified: Mapping[int, bytes]


class LogStates:
    """The states of some logs of one store."""

    def __init__(self, store: LogStore, store_id: str, keys: Sequence[VerifierKey]) -> None:
        """Know nothing yet.

        Args:
            store: The logs.
            store_id: Of the store.
            keys: Whose checkpoints count.
        """
        self._store = store
        self._store_id = store_id
        self._keys = keys
        self._states: dict[LogId, LogState] = {}
        self._doubted: set[LogId] = set()
        # Those that the next batch need not ask for.
        self._confirmed: set[LogId] = set()

    def __contains__(self, log: LogId) -> bool:
        return log in self._states

    def of(self, log: LogId) -> LogState:
        """Return the state of a log that is known."""
        return self._states[log]

    def sizes(self) -> dict[LogId, int]:
        """Return the number of leaves of each log that is known."""
        return {log: each.checkpoint.size for log, each in self._states.items()}

    def keep(self, log: LogId, state: LogState) -> None:
        """Know this of a log, whose head was swapped just now."""
        self._states[log] = state
        self._doubted.discard(log)

    def confirm(self, logs: Iterable[LogId]) -> None:
        """Let the next batch go on from what is known of some logs: their heads were just read."""
        self._confirmed.update(logs)
        self._doubted.difference_update(logs)

    def doubt(self, log: LogId) -> None:
        """Expect the batch to fail: its tiles are left behind then, and its swap may be made."""
        self._states[log] = replace(self._states[log], swept=False)
        self._doubted.add(log)

    def ends_before(self, log: LogId, offset: int, position: int) -> bool:
        """Return whether, as far as this process knows, no leaf is at `offset` or behind it.

        Args:
            log: The log.
            offset: Of a record.
            position: Its next offset by an index in which nobody else goes on with it.
        """
        state = self._states.get(log)
        if state is None or log in self._doubted or not self._store.is_shared:
            return False
        if not state.next_offset == position <= offset:
            return False
        self._confirmed.add(log)
        return True

    def heads(self, locked: LockedLogs, logs: Sequence[LogId]) -> dict[LogId, Head]:
        """Return the heads to go on from.

        Raises:
            IntegrityError: A log has none.
        """
        confirmed, self._confirmed = self._confirmed if locked.is_shared else set(), set()
        known = {log: self._states[log].head for log in logs if log in confirmed}
        found = known | heads_of(locked, [log for log in logs if log not in known])
        for log in logs:
            with ledger_faults(log):
                if log not in found:
                    raise EvidenceError("expected a checkpoint, found none")
        return found

    def read(self, store: Logs, heads: Mapping[LogId, Head]) -> dict[LogId, LogState]:
        """Return the states at `heads`: what this process knows, unless a head differs.

        Raises:
            IntegrityError: A checkpoint is not one of its log and the keys, or the tiles at the
                right edge do not give its root.
        """
        readers = {}
        for log, head in heads.items():
            state = self._states.get(log)
            if state is None or state.head != head:
                with ledger_faults(log):
                    origin = log.origin(self._store_id)
                    checkpoint = open_checkpoint(head.note, self._keys, origin=origin)
                readers[log] = LogReader(StoredLog(store, log), checkpoint)
        sizes = self.sizes()
        fetch_tiles(
            {
                reader.stored: partial(tiles_of_end, reader.size, sizes.get(log, 0))
                for log, reader in readers.items()
            }
        )
        for log, reader in readers.items():
            with ledger_faults(log):
                self._states[log] = self._state(reader, heads[log])
        return {log: self._states[log] for log in heads}

    def _state(self, reader: LogReader, head: Head) -> LogState:
        before, checkpoint = self._states.get(reader.log), reader.checkpoint
        if before is not None:
            # Another process went on, from what this one has seen: nothing else may come.
            reader.prove_consistency(before.checkpoint)
        verified: dict[int, bytes] = {}

        def read_tile(tile: Tile) -> bytes:
            content = verified[tile.level] = reader.stored.read_tile(tile)
            return content

        tree = TreeAppender.resume(checkpoint.size, read_tile)
        if tree.root() != checkpoint.root:
            raise EvidenceError(f"expected the tiles of the root {checkpoint.root.hex()}")
        return LogState(head, checkpoint, tree, reader.next_offset, swept=False, verified=verified)


def heads_of(store: Logs, logs: Iterable[LogId]) -> dict[LogId, Head]:
    """Return the heads of those of `logs` that have one."""
    by_path = {log.path: log for log in logs}
    return {by_path[path]: head for path, head in store.heads(by_path).items()}
