"""Logs read, each at one checkpoint: leaves and proofs are checked against the signed root.

The leaf that made a run or an advisory is found by the index, else by reading the logs.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial

from pipeline.core.advisories.outcome import StoredAdvisory
from pipeline.core.record import RecordSource
from pipeline.core.runs.outcome import StoredRun
from pipeline.core.store.contents import StoreContents
from pipeline.core.store.log_store import Logs
from pipeline.errors import IntegrityError
from pipeline.ledger.leaf import LedgerLeaf, parse_leaf
from pipeline.ledger.log_id import LogId
from pipeline.ledger.stored_log import StoredLog, fetch_tiles, find_logs, ledger_faults
from pipeline.ledger.tlog import EvidenceError
from pipeline.ledger.tlog.checkpoints import Checkpoint, open_checkpoint
from pipeline.ledger.tlog.notes import VerifierKey
from pipeline.ledger.tlog.proofs import (
    TlogProof,
    prove_consistency,
    root_of_size,
    verified_path,
    verify_consistency,
)
from pipeline.ledger.tlog.reads import tiles_of_bundles, tiles_of_work
from pipeline.ledger.tlog.tiles import (
    ENTRIES,
    TILE_WIDTH,
    TileHashes,
    check_bundle,
    parse_bundle,
    tile_at,
)

_CACHED_BUNDLES = 8
_BUNDLES_AHEAD = 32
"""Read at once, where a store is far: 8,192 leaves, some 3 MB."""


class LogReader:
    """A log at one checkpoint. A writer may go on meanwhile; this one does not see it.

    Attributes:
        log: Which log.
        checkpoint: What was signed.
        note: The signed note itself.
        stored: Its bytes.
    """

    def __init__(self, stored: StoredLog, checkpoint: Checkpoint, note: bytes = b"") -> None:
        """Read a log at `checkpoint`, which the caller has checked."""
        self.log = stored.log
        self.checkpoint = checkpoint
        self.note = note
        self.stored = stored
        self._hashes = TileHashes(checkpoint.size, stored.read_tile)
        # Of functions, not of methods of its own: a cycle would keep all that was read, until
        # the collector comes.
        load = partial(_load_bundle, stored, checkpoint, self._hashes)
        self._bundle = lru_cache(maxsize=_CACHED_BUNDLES)(load)

    @classmethod
    def open(
        cls, store: Logs, log: LogId, store_id: str, keys: Iterable[VerifierKey]
    ) -> "LogReader":
        """Open a log of a store at its checkpoint of now, signed by one of `keys`.

        Raises:
            IntegrityError: There is no checkpoint, or not one of this log by these keys.
        """
        stored = StoredLog(store, log)
        with store.faults(), ledger_faults(log):
            note = stored.read_checkpoint()
            if note is None:
                raise IntegrityError(f"The log {log.path} has no checkpoint.")
            checkpoint = open_checkpoint(note, keys, origin=log.origin(store_id))
        return cls(stored, checkpoint, note)

    @property
    def size(self) -> int:
        """Number of leaves."""
        return self.checkpoint.size

    @property
    def next_offset(self) -> int:
        """One more than the offset of the last leaf; 0 where there is none.

        Raises:
            IntegrityError: The last leaf is not what was appended.
        """
        return self.leaf(self.size - 1).offset + 1 if self.size else 0

    def entries(self, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield the bytes of the leaves from `start` to `end`, each covered by the checkpoint.

        Raises:
            IntegrityError: One is not what was appended.
        """
        stop = self.size if end is None else min(end, self.size)
        bundles = range(start // TILE_WIDTH, -(-stop // TILE_WIDTH))
        for index in bundles:
            first = index * TILE_WIDTH
            if (index - bundles.start) % _BUNDLES_AHEAD == 0:
                with self._faults():
                    ahead = range(index, min(index + _BUNDLES_AHEAD, bundles.stop))
                    fetch_tiles({self.stored: partial(tiles_of_bundles, self.size, ahead)})
            bundle = self.bundle(index)
            yield from bundle[max(start - first, 0) : stop - first]

    def leaves(self, start: int = 0, end: int | None = None) -> Iterator[LedgerLeaf]:
        """Yield the leaves from `start` to `end`, each covered by the checkpoint.

        Raises:
            IntegrityError: One is not what was appended.
        """
        for entry in self.entries(start, end):
            with ledger_faults(self.log):
                leaf = parse_leaf(entry)
            yield leaf

    def bundle(self, index: int) -> list[bytes]:
        """Return the leaves of the bundle at `index`, each covered by the checkpoint.

        Raises:
            IntegrityError: One is not what was appended.
        """
        with self._faults():
            return self._bundle(index)

    def leaf(self, index: int) -> LedgerLeaf:
        """Return the leaf at `index`, covered by the checkpoint.

        Raises:
            IntegrityError: It is not what was appended.
        """
        bundle, position = divmod(index, TILE_WIDTH)
        with self._faults():
            return parse_leaf(self._bundle(bundle)[position])

    def index_of(self, offset: int) -> int | None:
        """Return the index of the leaf of the record at `offset`; None where there is none.

        Leaves are in the order of offsets; a broker may leave offsets out.
        """
        if not self.size:
            return None
        # Mostly there are no gaps, and what is asked for is near the end.
        guess = self.size - 1 - (self.leaf(self.size - 1).offset - offset)
        if 0 <= guess < self.size and self.leaf(guess).offset == offset:
            return guess
        index = self.first_from(offset)
        found = index < self.size and self.leaf(index).offset == offset
        return index if found else None

    def first_from(self, offset: int) -> int:
        """Return the index of the first leaf at or after `offset`; their number if there is none.

        Raises:
            IntegrityError: A leaf is not what was appended.
        """
        if not self.size:
            return 0
        # Offsets may be left out, so there are no more leaves behind it than offsets.
        least = self.size - 1 - (self.leaf(self.size - 1).offset - offset)
        return bisect_left(
            range(self.size),
            offset,
            lo=min(max(least, 0), self.size),
            key=lambda at: self.leaf(at).offset,
        )

    def compare(self, leaves: Iterable[LedgerLeaf]) -> None:
        """Check that each offset of `leaves`, which the log has passed, has exactly this leaf.

        Raises:
            EvidenceError: It has another, or none.
        """
        for leaf in leaves:
            index = self.index_of(leaf.offset)
            if index is None:
                raise EvidenceError(
                    f"expected a leaf of offset {leaf.offset}, found those after it alone"
                )
            found = self.leaf(index)
            if found != leaf:
                raise EvidenceError(
                    f"expected leaf {index}, of offset {leaf.offset}, to be "
                    f"{leaf.encode().decode()}, found {found.encode().decode()}"
                )

    def prove(self, index: int) -> TlogProof:
        """Return the proof of the leaf at `index`, which anybody can check with a vkey alone.

        Raises:
            IntegrityError: The tiles do not give one.
        """
        with self._faults():
            bundle = [index // TILE_WIDTH]
            fetch_tiles({self.stored: partial(tiles_of_bundles, self.size, bundle)})
            path = verified_path(index, self.checkpoint, self._hashes.node)
            return TlogProof(index, tuple(path), self.note)

    def root_of(self, size: int) -> bytes:
        """Return the root over the first `size` leaves by the tiles, compared with nothing.

        Raises:
            IntegrityError: The tiles do not give one.
        """
        with self._faults():
            work = partial(root_of_size, size)
            fetch_tiles({self.stored: partial(tiles_of_work, self.size, work)})
            return root_of_size(size, self._hashes.node)

    def prove_consistency(self, old: Checkpoint) -> list[bytes]:
        """Return the proof that this log still begins with what `old` covers, checked.

        Raises:
            IntegrityError: It does not: leaves that `old` covers were changed, dropped or added.
        """
        with self._faults():
            if old.origin != self.checkpoint.origin:
                raise EvidenceError(f"expected a log {old.origin}, found {self.checkpoint.origin}")
            if old.size > self.size:
                raise EvidenceError(f"expected at least {old.size} leaves, found {self.size}")
            work = partial(prove_consistency, old.size, self.size)
            fetch_tiles({self.stored: partial(tiles_of_work, self.size, work)})
            proof = prove_consistency(old.size, self.size, self._hashes.node)
            verify_consistency(old.size, self.size, proof, old.root, self.checkpoint.root)
            return proof

    @contextmanager
    def _faults(self) -> Iterator[None]:
        with self.stored.store.faults(), ledger_faults(self.log):
            yield


def _load_bundle(
    stored: StoredLog, checkpoint: Checkpoint, hashes: TileHashes, index: int
) -> list[bytes]:
    tile = tile_at(checkpoint.size, ENTRIES, index)
    if tile not in stored.fetched:
        fetch_tiles({stored: partial(tiles_of_bundles, checkpoint.size, [index])})
    entries = parse_bundle(tile, stored.read_tile(tile))
    check_bundle(tile, entries, hashes.tile(0, index))
    # A path holds a hash over every other leaf. Those beside it in the tile are computed
    # from the tile, so one path that verifies vouches for the whole tile.
    verified_path(index * TILE_WIDTH, checkpoint, hashes.node)
    return entries


class StoreLogs:
    """The logs of one store, of all its epochs, as they stand when each is first asked for.

    Attributes:
        store: The store.
        store_id: Of the store.
        keys: Whose checkpoints count.
    """

    def __init__(self, store: StoreContents, keys: Sequence[VerifierKey]) -> None:
        """Look at nothing yet."""
        self.store = store
        self.store_id = store.identity.store_id
        self.keys = keys
        self._opened: dict[LogId, LogReader] = {}

    def ids(self) -> list[LogId]:
        """Return the logs that are there, in order."""
        with self.store.faults():
            return sorted(find_logs(self.store.logs))

    def open(self, log: LogId) -> LogReader:
        """Return a log at the checkpoint that it had when it was first asked for.

        Raises:
            IntegrityError: There is no checkpoint, or not one of this log by a trusted key.
        """
        if log not in self._opened:
            self._opened[log] = LogReader.open(self.store.logs, log, self.store_id, self.keys)
        return self._opened[log]

    def open_all(self) -> Iterator[LogReader]:
        """Yield every log, opened."""
        # All checkpoints first, so that they are of about one moment.
        yield from [self.open(log) for log in self.ids()]

    def by_origin(self) -> dict[str, LogId]:
        """Return the logs that are there by their origins."""
        return {log.origin(self.store_id): log for log in self.ids()}


@dataclass(frozen=True, slots=True)
class FoundLeaf:
    """A leaf and its place.

    Attributes:
        reader: Its log, at the checkpoint that covers it.
        index: From the log's start.
    """

    reader: LogReader
    index: int
    leaf: LedgerLeaf


def find_run_leaf(logs: StoreLogs, run: StoredRun) -> FoundLeaf:
    """Return the leaf that made a run, which names the file that the index names.

    Raises:
        IntegrityError: There is none, or it names another file or other bytes.
    """
    found = _find(logs, run.source, "run", run.run_id, None)
    if found is None:
        raise IntegrityError(f"The run {run.run_id} has no leaf in the ledger: nothing proves it.")
    if (found.leaf.path, found.leaf.sha256) != (run.artifact_path, run.artifact_sha256):
        raise IntegrityError(
            f"Expected {found.leaf.path} with SHA-256 {found.leaf.sha256}, as the leaf of "
            f"{run.run_id} says, found {run.artifact_path} with {run.artifact_sha256}."
        )
    return found


def find_advisory_leaf(logs: StoreLogs, advisory: StoredAdvisory) -> FoundLeaf:
    """Return the leaf that made an advisory, which names the link that the index names.

    Raises:
        IntegrityError: There is none, or it names other bytes.
    """
    found = _find(logs, advisory.source, "advisory", advisory.run_id, advisory.advisory_id)
    if found is None:
        raise IntegrityError(
            f"The link {advisory.link_path} has no leaf in the ledger: nothing proves it."
        )
    if found.leaf.link_sha256 != advisory.link_sha256:
        raise IntegrityError(
            f"Expected {advisory.link_path} with SHA-256 {found.leaf.link_sha256}, as its leaf "
            f"says, found {advisory.link_sha256}."
        )
    return found


def has_run_leaf(logs: StoreLogs, run_id: str) -> bool:
    """Return whether a run that the index does not know has a leaf. Reads all logs.

    Raises:
        IntegrityError: A log is not what was written.
    """
    return _find(logs, None, "run", run_id, None) is not None


def _find(
    logs: StoreLogs, source: RecordSource | None, kind: str, run_id: str, advisory_id: str | None
) -> FoundLeaf | None:
    wanted = (kind, run_id, advisory_id)
    for found in _at_source(logs, source):
        if _names(found.leaf) == wanted:
            return found
    # A row without a source, or one that a rebuild gave to a later record.
    needle = f'"run_id":"{run_id}"'.encode()
    for reader in logs.open_all():
        for index, entry in enumerate(reader.entries()):
            if needle in entry:
                with ledger_faults(reader.log):
                    leaf = parse_leaf(entry)
                if _names(leaf) == wanted:
                    return FoundLeaf(reader, index, leaf)
    return None


def _at_source(logs: StoreLogs, source: RecordSource | None) -> Iterator[FoundLeaf]:
    if source is None:
        return
    log = LogId(source.epoch, source.id.topic, source.id.partition)
    if log not in logs.ids():
        return
    reader = logs.open(log)
    index = reader.index_of(source.id.offset)
    if index is not None:
        yield FoundLeaf(reader, index, reader.leaf(index))


def _names(leaf: LedgerLeaf) -> tuple[str, str | None, str | None]:
    return leaf.kind, leaf.run_id, leaf.advisory_id
