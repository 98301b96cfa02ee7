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
tiles, which the next process removes with its first batch that is larger than they |

On a disk it is three flushes, for all logs of the batch together. That of step 4 makes the bytes
durable before a name shows them. That of step 6 makes the names of the tiles durable, with all that
the caller has linked, and the bytes of the new checkpoints: so whatever checkpoint is found, it is
whole and its tiles are there. That of step 7 makes the checkpoints durable before anything is
acknowledged.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from pipeline.core.store.files import Creation, Files, NewFile
from pipeline.core.store.log_store import CHECKPOINT_FILE, Head, LockedLogs, Logs, LogStore
from pipeline.errors import IntegrityError
from pipeline.ledger.keys import KeyInUse
from pipeline.ledger.leaf import LedgerLeaf
from pipeline.ledger.log_id import LogId
from pipeline.ledger.partial_tiles import remove_known, remove_narrower, tiles_with_leftovers
from pipeline.ledger.reader import LogReader
from pipeline.ledger.stored_log import StoredLog, ledger_faults
from pipeline.ledger.tlog import EvidenceError
from pipeline.ledger.tlog.append import TreeAppender, verify_append
from pipeline.ledger.tlog.checkpoints import (
    Checkpoint,
    empty_checkpoint,
    open_checkpoint,
    sign_checkpoint,
)
from pipeline.ledger.tlog.notes import NoteSigner
from pipeline.ledger.tlog.tiles import Tile, rightmost_tiles

Leaves = Mapping[LogId, Sequence[LedgerLeaf]]
"""New leaves of each log, in the order of their offsets."""


@dataclass(frozen=True, slots=True)
class _LogState:
    """A log at a checkpoint.

    Attributes:
        head: The signed checkpoint, as the store holds it.
        tree: The log, to be copied and appended to.
        next_offset: One more than that of the last leaf.
        swept: Whether no partial tile is there but those of this checkpoint.
        verified: The last bundle and its tile of level 0 where they are partial, by level: as the
            store held them, with each leaf hashed and followed to the root.
    """

    head: Head
    checkpoint: Checkpoint
    tree: TreeAppender
    next_offset: int
    swept: bool
    verified: Mapping[int, bytes]


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
        self._states: dict[LogId, _LogState] = {}

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
                heads = _by_log(locked, logs)
                appended = [
                    self._append(StoredLog(locked, log), heads.get(log), leaves[log])  # 3.
                    for log in logs
                ]
                yield LedgerBatch(appended, locked, self._signers, self._states)

    def leaves_of(
        self, offsets: Mapping[LogId, Sequence[int]]
    ) -> dict[tuple[LogId, int], LedgerLeaf]:
        """Return the leaves that records at `offsets` of each log have already.

        A leaf with code INTERNAL_ERROR stands: its record is judged so again.

        Raises:
            IntegrityError: A log is not what was written.
        """
        found: dict[tuple[LogId, int], LedgerLeaf] = {}
        for log, (reader, following) in self.opened(offsets).items():
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
        opened = {}
        with self._store.faults():
            logs = list(logs)
            missing = self._missing(logs)
            there = [log for log in logs if log not in missing]
            heads = _by_log(self._store, there)
            for log in there:
                stored = StoredLog(self._store, log)
                with ledger_faults(log):
                    state = self._read(stored, heads.get(log))
                opened[log] = LogReader(stored, state.checkpoint), state.next_offset
        return opened

    def begin(self, logs: Iterable[LogId]) -> None:
        """Make those of `logs` that do not exist, without leaves.

        Raises:
            IntegrityError: A log has lost its checkpoint.
        """
        with self._store.faults():
            self._make_missing(sorted(logs, key=lambda log: log.path))

    def _make_missing(self, logs: Sequence[LogId]) -> None:
        """Make logs that are not there. By link: of two that do, the second finds the first's."""
        self._files.create(
            NewFile(f"{log.path}/{CHECKPOINT_FILE}", self._sign_empty(log))
            for log in self._missing(logs)
        )

    def _missing(self, logs: Iterable[LogId]) -> list[LogId]:
        """Return those of `logs` that do not exist.

        Raises:
            IntegrityError: A log has lost its checkpoint.
        """
        unknown = [log for log in logs if log not in self._states]
        # Asked for first: a log never has tiles before it has a checkpoint.
        with_tiles = self._store.with_tiles([log.path for log in unknown])
        heads = _by_log(self._store, unknown)
        missing = [log for log in unknown if log not in heads]
        for log in missing:
            if log.path in with_tiles:
                raise IntegrityError(
                    f"The log {log.path} has tiles but no checkpoint: put back a copy of the "
                    "latest one, or move its folder out of the store and run rmos replay restore, "
                    "which makes the log again."
                )
        return missing

    def _sign_empty(self, log: LogId) -> bytes:
        return sign_checkpoint(empty_checkpoint(log.origin(self._store_id)), self._signers)

    def _append(
        self, stored: StoredLog, head: Head | None, leaves: Sequence[LedgerLeaf]
    ) -> "_LogBatch":
        log = stored.log
        _check_order(log, leaves)
        with ledger_faults(log):
            state = self._read(stored, head)
            known = [leaf for leaf in leaves if leaf.offset < state.next_offset]
            LogReader(stored, state.checkpoint).compare(known)
            tree = state.tree.copy()
            tree.extend([leaf.encode() for leaf in leaves[len(known) :]])
        following = max(state.next_offset, leaves[-1].offset + 1)
        checkpoint = Checkpoint(state.checkpoint.origin, tree.size, tree.root())
        # Should this batch fail, its tiles are left behind.
        self._states[log] = replace(state, swept=False)
        return _LogBatch(stored, state, tree, following, checkpoint, tree.new_tiles())

    def _read(self, stored: StoredLog, head: Head | None) -> _LogState:
        """Return the state of a log: what this process knows, unless the head differs.

        Raises:
            EvidenceError: The checkpoint is not one of this log and its keys, or the tiles at
                the right edge do not give its root.
        """
        if head is None:
            raise EvidenceError("expected a checkpoint, found none")
        state = self._states.get(stored.log)
        if state is not None and state.head == head:
            return state
        origin = stored.log.origin(self._store_id)
        checkpoint = open_checkpoint(head.note, self.keys, origin=origin)
        reader = LogReader(stored, checkpoint)
        if state is not None:
            # Another process went on, from what this one has seen: nothing else may come.
            reader.prove_consistency(state.checkpoint)
        verified: dict[int, bytes] = {}

        def read_tile(tile: Tile) -> bytes:
            content = verified[tile.level] = stored.read_tile(tile)
            return content

        tree = TreeAppender.resume(checkpoint.size, read_tile)
        if tree.root() != checkpoint.root:
            raise EvidenceError(f"expected the tiles of the root {checkpoint.root.hex()}")
        following = reader.leaf(checkpoint.size - 1).offset + 1 if checkpoint.size else 0
        state = _LogState(head, checkpoint, tree, following, swept=False, verified=verified)
        self._states[stored.log] = state
        return state


def _by_log(store: Logs, logs: Iterable[LogId]) -> dict[LogId, Head]:
    by_path = {log.path: log for log in logs}
    return {by_path[path]: head for path, head in store.heads(by_path).items()}


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
    before: _LogState
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
        states: dict[LogId, _LogState],
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
        for log in self._logs:  # 8.
            swept = self._clean(log)
            self._states[log.log] = _LogState(
                heads[log.log.path],
                log.checkpoint,
                log.tree.copy(),
                log.next_offset,
                swept=swept,
                verified=verified.get(log.log, log.before.verified),
            )
        return {log.log: log.checkpoint for log in self._logs}

    def _read_back(self, log: _LogBatch, creations: Mapping[str, Creation]) -> dict[int, bytes]:
        """Check what the disk holds, not what we meant to write: a wrong bit stays unsigned.

        Every tile is read, once; returns what the next batch finds verified.
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
            before = log.before
            size = before.checkpoint.size
            return verify_append(size, before.verified, log.checkpoint, held, log.stored.read_tile)

    def _clean(self, log: _LogBatch) -> bool:
        """Remove what the larger log has no use for; return whether no other tile is left over."""
        before = log.before
        if before.swept:
            widths = {tile.full: tile.width for tile in rightmost_tiles(before.checkpoint.size)}
            for tile in log.tiles:
                if width := widths.get(tile.full):
                    remove_known(self._store, log.log, tile, width)
            return True
        self._store.drop_unfinished(log.log.path)
        leftovers = tiles_with_leftovers(self._store, log.log, log.tree.size)
        tiles = dict.fromkeys([*log.tiles, *leftovers])
        swept = [remove_narrower(self._store, log.log, tile) for tile in tiles]
        return all(swept)
