"""The ledger: a batch of leaves is appended to its logs, or nothing is.

The procedure of a batch, with the same numbers in the code, and what is left if the process
dies after a step:

| step | if the process dies after it |
|---|---|
| 1. make a new log: its folder and the checkpoint of no leaves | an empty log |
| 2. lock the logs in order of name, read them and check them against their checkpoints | the same |
| 3. compare leaves of offsets that have one, append the others in memory | the same |
| 4. link the tiles, their bytes durable, in the group commit of the caller | tiles that no \
checkpoint covers: no part of the log; the same leaves find or make them again |
| 5. read the tiles back, hash their new leaves again, sign | the same |
| 6. swap the checkpoints: on a disk write them under another name, flush | the same, and that \
name, which goes |
| 7. on a disk rename them over the old ones, flush | the batch; after a power cut before the \
flush, the batch or the log before it |
| 8. remove partial tiles that the larger log has no use for | the batch, and some of those \
tiles, which the next process removes with its first batch that is larger than they; where many \
hosts share the store, a start does |

On a disk it is three flushes, for all logs of the batch together. That of step 4 makes the bytes
durable before a name shows them. That of step 6 makes the names of the tiles durable, with all that
the caller has linked, and the bytes of the new checkpoints: so whatever checkpoint is found, it is
whole and its tiles are there. That of step 7 makes the checkpoints durable before anything is
acknowledged.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from pipeline.core.store.files import Creation, Files, NewFile
from pipeline.core.store.log_store import CHECKPOINT_FILE, Head, LockedLogs, LogStore
from pipeline.errors import IntegrityError
from pipeline.ledger.keys import KeyInUse
from pipeline.ledger.leaf import LedgerLeaf
from pipeline.ledger.log_id import LogId
from pipeline.ledger.partial_tiles import remove_known, sweep
from pipeline.ledger.reader import LogReader
from pipeline.ledger.states import LogState, LogStates, heads_of
from pipeline.ledger.stored_log import StoredLog, fetch_tiles, ledger_faults
from pipeline.ledger.tlog import EvidenceError
from pipeline.ledger.tlog.append import TreeAppender, verify_append
from pipeline.ledger.tlog.checkpoints import (
    Checkpoint,
    empty_checkpoint,
    sign_checkpoint,
)
from pipeline.ledger.tlog.notes import NoteSigner
from pipeline.ledger.tlog.reads import tiles_of_offsets
from pipeline.ledger.tlog.tiles import Tile, rightmost_tiles

Leaves = Mapping[LogId, Sequence[LedgerLeaf]]
"""New leaves of each log, in the order of their offsets."""


class Ledger:
    """The logs of one store. One thread at a time; other processes take turns by the locks."""

    def __init__(
        self,
        files: Files,
        store: LogStore,
        store_id: str,
        signers: Sequence[NoteSigner],
        *,
        key_in_use: KeyInUse | None = None,
    ) -> None:
        """Open the ledger of a store.

        Args:
            files: Of the store.
            store: Its logs.
            store_id: Of the store; a part of every checkpoint's origin.
            signers: Who signs checkpoints; two while a new key takes over from an old one.
            key_in_use: Detects that another key has taken over; None for a key of no file.
        """
        self._files = files
        self._store = store
        self._store_id = store_id
        self._signers = signers
        self.keys = [signer.key for signer in signers]
        self._key_in_use = key_in_use
        self._states = LogStates(store, store_id, self.keys)
        self._readers: dict[LogId, LogReader] = {}

    def append_all(self, leaves: Leaves) -> dict[LogId, Checkpoint]:
        """Append leaves to several logs, durably; return their checkpoints.

        Raises:
            IntegrityError: A log is not what was written, or an offset has another leaf.
            StoreError: The disk failed; nothing may be acknowledged.
        """
        with self.appending(leaves) as batch:
            return batch.publish(self._files.link(batch.files))

    @contextmanager
    def appending(self, leaves: Leaves) -> Iterator["LedgerBatch"]:
        """Append to logs in memory, locked; the caller links `files`, then publishes.

        So the tiles share the flushes of the files that they are about, and `publish` makes all
        names durable. A batch that is not published leaves nothing.

        Raises:
            IntegrityError: A log is not what was written, or an offset has another leaf.
            StoreError: The disk failed; nothing may be acknowledged.
        """
        logs = sorted((log for log, added in leaves.items() if added), key=lambda log: log.path)
        if self._key_in_use is not None:
            self._key_in_use.check()
        with self._store.faults():
            self._make_missing(logs)  # 1.
            with self._store.locked([log.path for log in logs]) as locked:  # 2.
                states = self._states.read(locked, self._states.heads(locked, logs))
                appended = self._append(locked, states, leaves)  # 3.
                yield LedgerBatch(appended, locked, self._signers, self._states)

    def leaves_of(
        self,
        offsets: Mapping[LogId, Sequence[int]],
        positions: Mapping[LogId, int] | None = None,
    ) -> dict[tuple[LogId, int], LedgerLeaf]:
        """Return the leaves that records at `offsets` of each log have already.

        A leaf with code INTERNAL_ERROR stands: its record is judged so again.

        Args:
            offsets: Of each log, in order.
            positions: The next offset of each log by an index in which nobody else goes on with it.
                Where this process has left the log there too, a swap finds out the rest.

        Raises:
            IntegrityError: A log is not what was written.
        """
        found: dict[tuple[LogId, int], LedgerLeaf] = {}
        asked = [
            log
            for log, wanted in offsets.items()
            if positions is None or not self._states.ends_before(log, wanted[0], positions[log])
        ]
        opened = self.opened(asked)
        self._fetch({log: reader for log, (reader, _) in opened.items()}, offsets)
        for log, (reader, following) in opened.items():
            for offset in offsets[log]:
                index = reader.index_of(offset) if offset < following else None
                if index is not None:
                    found[log, offset] = reader.leaf(index)
        return found

    def reader(self, log: LogId) -> LogReader | None:
        """Open a log at its checkpoint of now; None where it does not exist yet.

        Raises:
            IntegrityError: The log is not what was written.
        """
        opened = self.opened([log]).get(log)
        return None if opened is None else opened[0]

    def opened(self, logs: Iterable[LogId]) -> dict[LogId, tuple[LogReader, int]]:
        """Return the reader of each log that exists, and the offset after that of its last leaf.

        Raises:
            IntegrityError: A log is not what was written.
        """
        with self._store.faults():
            heads, _ = self._found(list(logs))
            states = self._states.read(self._store, heads)
            self._states.confirm(states)
            readers = {
                log: LogReader(StoredLog(self._store, log), state.checkpoint)
                for log, state in states.items()
            }
            if self._store.is_shared:
                # The batch compares the leaves that it has asked for: it need not fetch them again.
                self._readers = readers
            return {log: (reader, states[log].next_offset) for log, reader in readers.items()}

    def sweep(self) -> None:
        """Remove what killed processes have left in the logs of many hosts that were opened.

        In a batch it would be a round trip more. On one disk the first batch does it.
        """
        if not self._store.is_shared:
            return
        sizes = {log: size for log, size in self._states.sizes().items() if size}
        with self._store.faults(), self._store.locked([log.path for log in sizes]) as locked:
            sweep(locked, sizes, {})
            # A swap of none: what is superseded goes now, as an idle worker makes no other.
            locked.swap({})

    def begin(self, logs: Iterable[LogId]) -> None:
        """Make those of `logs` that do not exist, without leaves.

        Raises:
            IntegrityError: A log has lost its checkpoint.
        """
        with self._store.faults():
            self._make_missing(sorted(logs, key=lambda log: log.path))

    def _make_missing(self, logs: Sequence[LogId]) -> None:
        """Make logs that are not there. By link: of two that do, the second finds the first's."""
        unknown = [log for log in logs if log not in self._states]
        self._files.create(
            NewFile(f"{log.path}/{CHECKPOINT_FILE}", self._sign_empty(log))
            for log in self._found(unknown)[1]
        )

    def _found(self, logs: Sequence[LogId]) -> tuple[dict[LogId, Head], list[LogId]]:
        """Return the heads of `logs`, and those that do not exist.

        Raises:
            IntegrityError: A log has lost its checkpoint.
        """
        heads = heads_of(self._store, logs)
        missing = [log for log in logs if log not in heads]
        with_tiles = self._store.with_tiles([log.path for log in missing])
        # Once more: who made it meanwhile has made the checkpoint before the tiles.
        heads |= heads_of(self._store, [log for log in missing if log.path in with_tiles])
        missing = [log for log in missing if log not in heads]
        for log in missing:
            if log.path in with_tiles:
                raise IntegrityError(
                    f"The log {log.path} has tiles but no checkpoint: put back a copy of the "
                    "latest one, or move its folder out of the store and run rmos replay restore, "
                    "which makes the log again."
                )
        return heads, missing

    def _sign_empty(self, log: LogId) -> bytes:
        return sign_checkpoint(empty_checkpoint(log.origin(self._store_id)), self._signers)

    def _append(
        self, locked: LockedLogs, states: Mapping[LogId, LogState], leaves: Leaves
    ) -> list["_LogBatch"]:
        opened, self._readers = self._readers, {}
        readers, known = {}, {}
        for log, state in states.items():
            _check_order(log, leaves[log])
            known[log] = [leaf for leaf in leaves[log] if leaf.offset < state.next_offset]
            found = opened.get(log)
            if found is None or found.checkpoint != state.checkpoint:
                found = LogReader(StoredLog(locked, log), state.checkpoint)
            readers[log] = found
        self._fetch(readers, {log: [leaf.offset for leaf in each] for log, each in known.items()})
        batches = []
        for log, state in states.items():
            with ledger_faults(log):
                readers[log].compare(known[log])
                tree = state.tree.copy()
                tree.extend([leaf.encode() for leaf in leaves[log][len(known[log]) :]])
            following = max(state.next_offset, leaves[log][-1].offset + 1)
            checkpoint = Checkpoint(state.checkpoint.origin, tree.size, tree.root())
            self._states.doubt(log)
            stored = StoredLog(locked, log)
            batches.append(_LogBatch(stored, state, tree, following, checkpoint, tree.new_tiles()))
        return batches

    def _fetch(
        self, readers: Mapping[LogId, LogReader], offsets: Mapping[LogId, Sequence[int]]
    ) -> None:
        """Read what the leaves of some offsets are in, of all logs at once."""
        fetch_tiles(
            {
                reader.stored: partial(
                    tiles_of_offsets, reader.size, self._states.of(log).next_offset, offsets[log]
                )
                for log, reader in readers.items()
            }
        )


def _check_order(log: LogId, leaves: Sequence[LedgerLeaf]) -> None:
    """Refuse what the caller got wrong before anything is written."""
    before = -1
    for leaf in leaves:
        if (leaf.topic, leaf.partition) != (log.topic, log.partition) or leaf.offset <= before:
            raise ValueError(f"expected leaves of {log} in the order of their offsets")
        before = leaf.offset


@dataclass(frozen=True, slots=True)
class _LogBatch:
    """What a batch makes of one log; no tiles where it has no new leaves."""

    stored: StoredLog
    before: LogState
    tree: TreeAppender
    next_offset: int
    checkpoint: Checkpoint
    tiles: Mapping[Tile, bytes]

    @property
    def log(self) -> LogId:
        return self.stored.log

    def path_of(self, tile: Tile) -> str:
        return f"{self.log.path}/{tile}"


class LedgerBatch:
    """Logs with new leaves in memory, and locked.

    Attributes:
        files: Their new tiles, for the caller to link.
    """

    def __init__(
        self,
        logs: Sequence[_LogBatch],
        store: LockedLogs,
        signers: Sequence[NoteSigner],
        states: LogStates,
    ) -> None:
        self._logs = logs
        self._store = store
        self._signers = signers
        self._states = states
        self.files = [
            NewFile(log.path_of(tile), content)
            for log in logs
            for tile, content in log.tiles.items()
        ]

    def publish(self, creations: Mapping[str, Creation]) -> dict[LogId, Checkpoint]:
        """Sign the checkpoints and put them in place; return those of all logs of the batch.

        All names in the file system are durable then.

        Args:
            creations: What came of linking `files`.

        Raises:
            IntegrityError: A tile is not what it must be; no checkpoint was signed.
            LogMovedError: Another process went on with a log, where no lock held it off.
            StoreError: The disk failed; nothing may be acknowledged.
        """
        changed = [log for log in self._logs if log.tiles]
        verified = {log.log: self._read_back(log, creations) for log in changed}  # 5.
        notes = {log.log: sign_checkpoint(log.checkpoint, self._signers) for log in changed}
        heads = self._store.swap(  # 6. and 7.
            {
                each.log.path: (each.before.head, notes.get(each.log, each.before.head.note))
                for each in self._logs
            }
        )
        swept = self._clean()  # 8.
        for log in self._logs:
            state = LogState(
                heads[log.log.path],
                log.checkpoint,
                log.tree.copy(),
                log.next_offset,
                swept=log.log in swept,
                verified=verified.get(log.log, log.before.verified),
            )
            self._states.keep(log.log, state)
        return {log.log: log.checkpoint for log in self._logs}

    def _read_back(self, log: _LogBatch, creations: Mapping[str, Creation]) -> dict[int, bytes]:
        """Check what the disk holds, not what we meant to write: a wrong bit stays unsigned.

        Every new tile is read, once; on a disk those at the right edge that stay, too. Returns what
        the next batch finds verified.
        """
        with ledger_faults(log.log):
            held: dict[Tile, bytes] = {}
            for tile, content in log.tiles.items():
                if creations[log.path_of(tile)] not in {Creation.CREATED, Creation.SAME}:
                    raise EvidenceError(
                        f"expected no {tile}, or one with the same bytes, found other bytes that "
                        "no checkpoint here covers"
                    )
                held[tile] = log.stored.read_tile(tile)
                if held[tile] != content:
                    raise EvidenceError(f"expected {tile} as it was written, found other bytes")
            if not self._store.is_shared:
                # What the append leaves as it was vouches for the new root too.
                kept = (each for each in rightmost_tiles(log.tree.size) if each not in held)
                held |= {tile: log.stored.read_tile(tile) for tile in kept}
            before = log.before
            return verify_append(before.checkpoint.size, before.verified, log.checkpoint, held)

    def _clean(self) -> set[LogId]:
        """Remove what larger logs have no use for; return those with no other tile left over."""
        swept = {log.log for log in self._logs if log.before.swept}
        for log in self._logs:
            if log.log in swept or self._store.is_shared:
                size = log.before.checkpoint.size
                widths = {tile.full: tile.width for tile in rightmost_tiles(size)}
                for tile in log.tiles:
                    if width := widths.get(tile.full):
                        remove_known(self._store, log.log, tile, width)
        if self._store.is_shared:
            return swept
        rest = [log for log in self._logs if log.log not in swept]
        sizes = {log.log: log.tree.size for log in rest}
        return swept | sweep(self._store, sizes, {log.log: [*log.tiles] for log in rest})
