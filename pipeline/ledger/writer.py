"""The ledger on disk: a batch of leaves is appended to its logs, or nothing is.

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
| 6. write the checkpoints under another name, flush | the same, and that name, which goes |
| 7. rename them over the old ones, flush | the batch; after a power cut before the flush, \
the batch or the log before it |
| 8. remove partial tiles that the larger log has no use for | the batch, and some of those \
tiles, which the next process removes with its first batch that is larger than they |

Three flushes, for all logs of the batch together. That of step 4 makes the bytes durable before a
name shows them. That of step 6 makes the names of the tiles durable, with all that the caller has
linked, and the bytes of the new checkpoints: so whatever checkpoint is found, it is whole and its
tiles are there. That of step 7 makes the checkpoints durable before anything is acknowledged.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.core.store.files import Creation, NewFile
from pipeline.disk.durable_files import DurableFiles
from pipeline.disk.faults import store_faults
from pipeline.disk.locks import exclusive_lock
from pipeline.disk.small_files import Folders
from pipeline.errors import IntegrityError
from pipeline.ledger.checkpoint_files import CheckpointFiles
from pipeline.ledger.folder import (
    CHECKPOINT_FILE,
    LOCK_FILE,
    LedgerSystemCalls,
    LogFolder,
    ledger_faults,
)
from pipeline.ledger.keys import KeyInUse
from pipeline.ledger.leaf import LedgerLeaf
from pipeline.ledger.log_id import LogId
from pipeline.ledger.reader import LogReader
from pipeline.ledger.tlog import EvidenceError
from pipeline.ledger.tlog.append import TreeAppender, verify_append
from pipeline.ledger.tlog.checkpoints import (
    Checkpoint,
    empty_checkpoint,
    open_checkpoint,
    sign_checkpoint,
)
from pipeline.ledger.tlog.notes import NoteSigner
from pipeline.ledger.tlog.tiles import (
    Tile,
    rightmost_tiles,
)

Leaves = Mapping[LogId, Sequence[LedgerLeaf]]
"""New leaves of each log, in the order of their offsets."""


@dataclass(frozen=True, slots=True)
class _LogState:
    """A log at a checkpoint.

    Attributes:
        note: The signed checkpoint, as it stands on disk.
        tree: The log, to be copied and appended to.
        next_offset: One more than that of the last leaf.
        swept: Whether no partial tile is there but those of this checkpoint.
        verified: The last bundle and its tile of level 0 where they are partial, by level: as the
            disk held them, with each leaf hashed and followed to the root.
    """

    note: bytes
    checkpoint: Checkpoint
    tree: TreeAppender
    next_offset: int
    swept: bool
    verified: Mapping[int, bytes]


class Ledger:
    """The logs of one store. One thread at a time; other processes take turns by the locks."""

    def __init__(
        self,
        root: Path,
        store_id: str,
        signers: Sequence[NoteSigner],
        *,
        key_in_use: KeyInUse | None = None,
        calls: LedgerSystemCalls | None = None,
    ) -> None:
        """Open the ledger of the store at `root`.

        Args:
            root: Folder of the store.
            store_id: Of the store; a part of every checkpoint's origin.
            signers: Who signs checkpoints; two while a new key takes over from an old one.
            key_in_use: Detects that another key has taken over; None for a key of no file.
            calls: System calls, for tests.
        """
        self.root = root
        self._store_id = store_id
        self._signers = signers
        self._keys = [signer.key for signer in signers]
        self._key_in_use = key_in_use
        self._calls = calls or LedgerSystemCalls()
        self._states: dict[LogId, _LogState] = {}
        with store_faults(root):
            self._files = DurableFiles(root, self._calls)

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
        with store_faults(self.root), ExitStack() as held:
            self._make_missing(logs)  # 1.
            for log in logs:  # 2.
                held.enter_context(exclusive_lock(self.root / log.path / LOCK_FILE))
            checkpoint_files = CheckpointFiles(
                self.root, self._calls, held, group_commits=self._files.group_commits
            )
            folders = checkpoint_files.folders
            appended = [self._append(log, leaves[log], folders) for log in logs]  # 3.
            yield LedgerBatch(appended, checkpoint_files, self._signers, self._states)

    def leaves_of(self, log: LogId, offsets: Iterable[int]) -> dict[int, LedgerLeaf]:
        """Return the leaves that records at `offsets` have already.

        A leaf with code INTERNAL_ERROR stands: its record is judged so again.

        Raises:
            IntegrityError: The log is not what was written.
        """
        opened = self._opened(log)
        if opened is None:
            return {}
        reader, following = opened
        found = {offset: reader.index_of(offset) for offset in offsets if offset < following}
        return {offset: reader.leaf(index) for offset, index in found.items() if index is not None}

    def reader(self, log: LogId) -> LogReader | None:
        """Open a log at its checkpoint of now; None where it does not exist yet.

        Raises:
            IntegrityError: The log is not what was written.
        """
        opened = self._opened(log)
        return None if opened is None else opened[0]

    def _opened(self, log: LogId) -> tuple[LogReader, int] | None:
        """Return a log's reader and the offset after that of its last leaf."""
        folder = LogFolder(self.root, log, self._calls)
        with store_faults(self.root), ledger_faults(log):
            if log not in self._states and self._is_missing(log):
                return None
            state = self._read(folder)
        return LogReader(folder, state.checkpoint), state.next_offset

    def begin(self, logs: Iterable[LogId]) -> None:
        """Make those of `logs` that do not exist, without leaves.

        Raises:
            IntegrityError: A log has lost its checkpoint.
        """
        with store_faults(self.root):
            self._make_missing(sorted(logs, key=lambda log: log.path))

    def _make_missing(self, logs: Sequence[LogId]) -> None:
        """Make logs that are not there. By link: of two that do, the second finds the first's."""
        missing = [log for log in logs if log not in self._states and self._is_missing(log)]
        self._files.create(
            NewFile(f"{log.path}/{CHECKPOINT_FILE}", self._sign_empty(log)) for log in missing
        )

    def _is_missing(self, log: LogId) -> bool:
        folder = LogFolder(self.root, log, self._calls)
        # Asked for first: a log never has tiles before it has a checkpoint.
        has_tiles = folder.has_tiles
        if folder.read_checkpoint() is not None:
            return False
        if has_tiles:
            raise IntegrityError(
                f"The log {log.path} has tiles but no checkpoint: put back a copy of the latest "
                "one, or move its folder out of the store and run rmos replay restore, which makes "
                "the log again."
            )
        return True

    def _sign_empty(self, log: LogId) -> bytes:
        return sign_checkpoint(empty_checkpoint(log.origin(self._store_id)), self._signers)

    def _append(self, log: LogId, leaves: Sequence[LedgerLeaf], folders: Folders) -> "_LogBatch":
        _check_order(log, leaves)
        folder = LogFolder(self.root, log, self._calls, folders)
        with ledger_faults(log):
            state = self._read(folder)
            known = [leaf for leaf in leaves if leaf.offset < state.next_offset]
            _compare(LogReader(folder, state.checkpoint), known)
            tree = state.tree.copy()
            tree.extend([leaf.encode() for leaf in leaves[len(known) :]])
        following = max(state.next_offset, leaves[-1].offset + 1)
        checkpoint = Checkpoint(state.checkpoint.origin, tree.size, tree.root())
        # Should this batch fail, its tiles are left behind.
        self._states[log] = replace(state, swept=False)
        return _LogBatch(folder, state, tree, following, checkpoint, tree.new_tiles())

    def _read(self, folder: LogFolder) -> _LogState:
        """Return the state of a log: what this process knows, unless the checkpoint differs.

        Raises:
            EvidenceError: The checkpoint is not one of this log and its keys, or the tiles at
                the right edge do not give its root.
        """
        note = folder.read_checkpoint()
        state = self._states.get(folder.log)
        if note is not None and state is not None and state.note == note:
            return state
        if note is None:
            raise EvidenceError("expected a checkpoint, found none")
        checkpoint = open_checkpoint(note, self._keys, origin=folder.log.origin(self._store_id))
        reader = LogReader(folder, checkpoint)
        if state is not None:
            # Another process went on, from what this one has seen: nothing else may come.
            reader.prove_consistency(state.checkpoint)
        verified: dict[int, bytes] = {}

        def read_tile(tile: Tile) -> bytes:
            content = verified[tile.level] = folder.read_tile(tile)
            return content

        tree = TreeAppender.resume(checkpoint.size, read_tile)
        if tree.root() != checkpoint.root:
            raise EvidenceError(f"expected the tiles of the root {checkpoint.root.hex()}")
        following = reader.leaf(checkpoint.size - 1).offset + 1 if checkpoint.size else 0
        state = _LogState(note, checkpoint, tree, following, swept=False, verified=verified)
        self._states[folder.log] = state
        return state


def _check_order(log: LogId, leaves: Sequence[LedgerLeaf]) -> None:
    """Refuse what the caller got wrong before anything is written."""
    before = -1
    for leaf in leaves:
        if (leaf.topic, leaf.partition) != (log.topic, log.partition) or leaf.offset <= before:
            raise ValueError(f"expected leaves of {log} in the order of their offsets")
        before = leaf.offset


def _compare(reader: LogReader, leaves: Sequence[LedgerLeaf]) -> None:
    """Check that each offset, which the log has passed, has exactly this leaf.

    Raises:
        EvidenceError: It has another, or none.
    """
    for leaf in leaves:
        index = reader.index_of(leaf.offset)
        if index is None:
            raise EvidenceError(
                f"expected a leaf of offset {leaf.offset}, found those after it alone"
            )
        found = reader.leaf(index)
        if found != leaf:
            raise EvidenceError(
                f"expected leaf {index}, of offset {leaf.offset}, to be {leaf.encode().decode()}, "
                f"found {found.encode().decode()}"
            )


@dataclass(frozen=True, slots=True)
class _LogBatch:
    """What a batch makes of one log; no tiles where it has no new leaves."""

    folder: LogFolder
    before: _LogState
    tree: TreeAppender
    next_offset: int
    checkpoint: Checkpoint
    tiles: Mapping[Tile, bytes]

    def path_of(self, tile: Tile) -> str:
        return f"{self.folder.log.path}/{tile}"


class LedgerBatch:
    """Logs with new leaves in memory, and locked.

    Attributes:
        files: Their new tiles, for the caller to link.
    """

    def __init__(
        self,
        logs: Sequence[_LogBatch],
        checkpoint_files: CheckpointFiles,
        signers: Sequence[NoteSigner],
        states: dict[LogId, _LogState],
    ) -> None:
        self._logs = logs
        self._checkpoint_files = checkpoint_files
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
            StoreError: The disk failed; nothing may be acknowledged.
        """
        changed = [log for log in self._logs if log.tiles]
        verified = {log.folder.log: self._read_back(log, creations) for log in changed}  # 5.
        notes = {log.folder.log: sign_checkpoint(log.checkpoint, self._signers) for log in changed}
        if notes:
            self._checkpoint_files.write_checkpoints(notes)  # 6.
            self._checkpoint_files.publish_checkpoints(notes)
        # 7. Also where nothing grew: the process that wrote the checkpoint may have died here.
        self._checkpoint_files.flush([log.folder.log for log in self._logs])
        for log in self._logs:  # 8.
            swept = self._clean(log)
            self._states[log.folder.log] = _LogState(
                notes.get(log.folder.log, log.before.note),
                log.checkpoint,
                log.tree.copy(),
                log.next_offset,
                swept=swept,
                verified=verified.get(log.folder.log, log.before.verified),
            )
        return {log.folder.log: log.checkpoint for log in self._logs}

    def _read_back(self, log: _LogBatch, creations: Mapping[str, Creation]) -> dict[int, bytes]:
        """Check what the disk holds, not what we meant to write: a wrong bit stays unsigned.

        Every tile is read, once; returns what the next batch finds verified.
        """
        with ledger_faults(log.folder.log):
            held: dict[Tile, bytes] = {}
            for tile, content in log.tiles.items():
                if creations[log.path_of(tile)] not in {Creation.CREATED, Creation.SAME}:
                    raise EvidenceError(
                        f"expected no {tile}, or one with the same bytes, found other bytes that "
                        "no checkpoint here covers"
                    )
                held[tile] = log.folder.read_tile(tile)
                if held[tile] != content:
                    raise EvidenceError(f"expected {tile} as it was written, found other bytes")
            before = log.before
            size = before.checkpoint.size
            return verify_append(size, before.verified, log.checkpoint, held, log.folder.read_tile)

    def _clean(self, log: _LogBatch) -> bool:
        """Remove what the larger log has no use for; return whether no other tile is left over."""
        before = log.before
        if before.swept:
            widths = {tile.full: tile.width for tile in rightmost_tiles(before.checkpoint.size)}
            for tile in log.tiles:
                if width := widths.get(tile.full):
                    self._checkpoint_files.remove_known(log.folder.log, tile, width)
            return True
        leftovers = self._checkpoint_files.tiles_with_leftovers(log.folder.log, log.tree.size)
        tiles = dict.fromkeys([*log.tiles, *leftovers])
        swept = [self._checkpoint_files.remove_narrower(log.folder.log, tile) for tile in tiles]
        return all(swept)
