"""The logs of a store: opened as of one moment, and checked from their leaves.

Checked of each log:

1. Its checkpoint is there, signed by a key that is known, and of this log.
2. Its leaves give the root that is signed, and every tile that is there.
3. Each leaf is one that a worker writes: its form, its log, its offset above the one before.
4. It continues every trusted checkpoint of it.

Where 1 fails, the rest is checked of as many leaves as there are. This is the first part of an
audit: all logs are read by several processes, and put together in order.

A broker leaves offsets out by itself: where a transaction began, ended or was given up. So a gap
between two leaves is only a fault where the broker can still show a record in it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

from pipeline.audit.checks.leaves import RANGE_BUNDLES, BundleRange, read_bundles, tile_reader
from pipeline.audit.plan import AuditPlan
from pipeline.audit.rules.finding import Finding
from pipeline.audit.steps import Step, StepPool
from pipeline.core.store.contents import StoreContents
from pipeline.core.store.files import ReadableFiles
from pipeline.core.store.log_store import CHECKPOINT_FILE, LogStore
from pipeline.errors import IntegrityError
from pipeline.ledger.log_id import LogId
from pipeline.ledger.reader import LogReader
from pipeline.ledger.stored_log import StoredLog, find_logs
from pipeline.ledger.tlog import EvidenceError
from pipeline.ledger.tlog.checkpoints import Checkpoint, open_checkpoint
from pipeline.ledger.tlog.notes import VerifierKey
from pipeline.ledger.tlog.recompute import RootRecomputation, tiles_that_differ
from pipeline.ledger.tlog.tiles import ENTRIES, TILE_WIDTH, Tile, bundles_of, parse_tile_path
from pipeline.ledger.witnessed import check_continues


@dataclass(slots=True)
class AuditedLog:
    """One log.

    Attributes:
        number: By which the plan knows it.
        log: Which one.
        checkpoint: As signed; None where no good signature is there.
        note: The signed note.
        size: Number of leaves that are looked at.
        root: That its leaves give, once they have been read.
        next_offset: One more than that of the last leaf.
        gaps: Offsets without a leaf, below `next_offset`: the first, and the one after the last.
        changed: Bundles that are not as they were written.
        is_intact: Whether all tiles are, and give the root that is signed.
        anchored_size: Of the largest trusted checkpoint that it continues.
    """

    number: int
    log: LogId
    checkpoint: Checkpoint | None
    note: bytes
    size: int
    root: bytes = b""
    next_offset: int = 0
    gaps: list[tuple[int, int]] = field(default_factory=list)
    changed: set[int] = field(default_factory=set)
    is_intact: bool = False
    anchored_size: int = 0

    @property
    def path(self) -> str:
        """Its folder, relative to the store."""
        return self.log.path

    def ranges(self) -> range:
        """Return the first bundle of each step."""
        return range(0, bundles_of(self.size), RANGE_BUNDLES)


def read_notes(logs: LogStore) -> dict[LogId, bytes | None]:
    """Return the checkpoint of every log as it is now; None where there is none.

    Raises:
        OSError: The disk failed.
    """
    found = sorted(find_logs(logs))
    heads = logs.heads([log.path for log in found])
    return {log: heads[log.path].note if log.path in heads else None for log in found}


def open_log(
    files: ReadableFiles,
    number: int,
    log: LogId,
    note: bytes | None,
    *,
    store_id: str,
    keys: Sequence[VerifierKey],
) -> tuple[AuditedLog, list[Finding]]:
    """Return the log at its checkpoint, and what is wrong with that (1)."""
    try:
        if note is None:
            raise EvidenceError("no such file")  # noqa: TRY301  # as any other that is not good
        checkpoint = open_checkpoint(note, keys, origin=log.origin(store_id))
    except EvidenceError as error:
        path = f"{log.path}/{CHECKPOINT_FILE}"
        expected = f"a checkpoint of {log.origin(store_id)}, signed by a key of the store"
        opened = AuditedLog(number, log, None, note or b"", _size_of_tiles(files, log.path))
        return opened, [Finding("CHECKPOINT_DIFFERS", path, expected, str(error))]
    return AuditedLog(number, log, checkpoint, note, checkpoint.size), []


def _size_of_tiles(files: ReadableFiles, folder: str) -> int:
    """Return how many leaves there are, by the names of the bundles."""
    size = 0
    for path in files.paths_below(f"{folder}/tile/entries"):
        try:
            tile = parse_tile_path(path.removeprefix(f"{folder}/"))
        except EvidenceError:
            continue
        if files.readable([path]):
            size = max(size, tile.index * TILE_WIDTH + tile.width)
    return size


class LogCheck:
    """Takes the ranges of one log in order, fills the plan, and finds what is wrong (2 and 3)."""

    def __init__(self, store: StoreContents, audited: AuditedLog, plan: AuditPlan) -> None:
        self._files = store.files
        self._audited = audited
        self._plan = plan
        self._read_tile = tile_reader(StoredLog(store.logs, audited.log))
        self._recomputed = RootRecomputation(self._read_tile)
        self._partial: list[bytes] = []
        self._doubtful: list[int] = []
        self._unreadable: dict[int, str] = {}
        self._wrong: list[tuple[int, str]] = []

    def add(self, found: BundleRange) -> Iterator[Finding]:
        """Add the next range; yield the notes in it."""
        audited = self._audited
        for root in found.roots:
            self._recomputed.add_full(root)
        self._partial = found.partial
        self._doubtful += found.doubtful
        self._unreadable |= dict(found.unreadable)
        self._wrong += found.wrong
        self._plan.add_leaves(audited.number, found.runs, found.advisories)
        if found.first_offset is not None and found.last_offset is not None:
            if found.first_offset > audited.next_offset:
                audited.gaps.append((audited.next_offset, found.first_offset))
            elif found.first_offset < audited.next_offset:
                number = found.runs[0][-2] if found.runs else audited.size
                reason = (
                    f"expected an offset from {audited.next_offset}, found {found.first_offset}"
                )
                self._wrong.append((number, reason))
            audited.gaps += found.gaps
            audited.next_offset = max(audited.next_offset, found.last_offset + 1)
        for number, offset in found.failed:
            path = self._path(self._bundle(number // TILE_WIDTH))
            failed = f"INTERNAL_ERROR in leaf {number}, of offset {offset}"
            yield Finding("INTERNAL_ERROR", path, "a verdict on every record", failed)

    def finish(self) -> Iterator[Finding]:
        """Yield what is wrong with the tiles and leaves, once all ranges are there."""
        audited = self._audited
        audited.root = self._recomputed.finish(self._partial)
        wrong = self._wrong_tiles()
        audited.is_intact = bool(audited.checkpoint) and wrong == [] and not self._unreadable
        if wrong is None:
            yield self._other_root()
            # Which of two that differ is right is not known.
            wrong = [*self._both(self._doubtful), *self._recomputed.differing]
        for tile in dict.fromkeys([*map(self._bundle, self._unreadable), *wrong]):
            yield self._tile_finding(tile)
        changed = {tile.index for tile in wrong if tile.level == ENTRIES} | self._unreadable.keys()
        audited.changed = changed
        _distrust_changed(audited, self._plan)
        for number, reason in self._wrong:
            # In a bundle that is not as it was written this is no news.
            if number // TILE_WIDTH not in changed:
                bundle = self._bundle(number // TILE_WIDTH)
                expected = "a leaf as a worker writes it"
                found = f"leaf {number}: {reason}"
                yield Finding("LEAF_DIFFERS", self._path(bundle), expected, found)

    def _wrong_tiles(self) -> list[Tile] | None:
        """Return what is not as signed; None where the signed root helps no further."""
        checkpoint = self._audited.checkpoint
        if checkpoint is None:
            return [*self._both(self._doubtful), *self._recomputed.differing]
        if checkpoint.root == self._audited.root:
            return [*(self._level_0(each) for each in self._doubtful), *self._recomputed.differing]
        return tiles_that_differ(checkpoint.size, checkpoint.root, self._read_tile)

    def _both(self, indices: Iterable[int]) -> Iterator[Tile]:
        for index in indices:
            yield self._bundle(index)
            yield self._level_0(index)

    def _bundle(self, index: int) -> Tile:
        return Tile(ENTRIES, index, min(TILE_WIDTH, self._audited.size - index * TILE_WIDTH))

    def _level_0(self, index: int) -> Tile:
        return Tile(0, index, self._bundle(index).width)

    def _path(self, tile: Tile) -> str:
        return f"{self._audited.path}/{tile}"

    def _other_root(self) -> Finding:
        audited = self._audited
        assert audited.checkpoint is not None
        path = f"{audited.path}/{CHECKPOINT_FILE}"
        expected = f"the root {audited.root.hex()}, which the {audited.size:,} leaves give"
        return Finding("CHECKPOINT_DIFFERS", path, expected, audited.checkpoint.root.hex())

    def _tile_finding(self, tile: Tile) -> Finding:
        path = self._path(tile)
        found = self._unreadable.get(tile.index) if tile.level == ENTRIES else None
        if found is None:
            found = "other bytes" if self._files.readable([path]) else "no such file"
        expected = f"the bytes of {tile} that the log's root covers"
        return Finding("TILE_DIFFERS", path, expected, found)


def check_trusted(
    store: StoreContents, logs: Sequence[AuditedLog], trusted: Iterable[Checkpoint]
) -> Iterator[Finding]:
    """Compare the logs with trusted checkpoints (4).

    Each checkpoint is taken at its word: the caller has checked who signed it.
    """
    by_origin = {audited.log.origin(store.identity.store_id): audited for audited in logs}
    for old in trusted:
        audited = by_origin.get(old.origin)
        expected = f"a log {old.origin} that goes on from {old.size:,} leaves held by somebody"
        if audited is None:
            yield Finding("ANCHOR_BROKEN", "ledger", expected, "no such log")
            continue
        reason = _why_not_consistent(store.logs, audited, old)
        if reason is not None:
            yield Finding("ANCHOR_BROKEN", audited.path, expected, reason)
        else:
            audited.anchored_size = max(audited.anchored_size, old.size)


def _why_not_consistent(logs: LogStore, audited: AuditedLog, old: Checkpoint) -> str | None:
    if audited.checkpoint is None:
        return "no good checkpoint"
    try:
        stored = StoredLog(logs, audited.log)
        check_continues(LogReader(stored, audited.checkpoint, audited.note), old)
    except (EvidenceError, IntegrityError) as error:
        return str(error.__cause__ or error)
    # The hashes alone were compared: the leaves under them were read before.
    changed = sorted(index for index in audited.changed if index < bundles_of(old.size))
    if changed:
        return f"leaves of the bundle {Tile(ENTRIES, changed[0])} are not those that were held"
    return None


def check_logs(
    store: StoreContents, logs: Sequence[AuditedLog], plan: AuditPlan, pool: StepPool, part: str
) -> Iterator[Finding]:
    """Read every leaf of `logs` into the plan; yield what is wrong with them.

    The steps of all logs are one queue, so no process waits at the end of a log.
    """
    checks = {log.log: (LogCheck(store, log, plan), list(log.ranges())) for log in logs}
    for log in logs:
        if not log.size:
            yield from checks[log.log][0].finish()
    for step, found in pool.run(_steps(logs, part)):
        check, left = checks[step.arguments[0]]
        yield from check.add(found)
        left.pop()
        if not left:
            yield from check.finish()


def _steps(logs: Sequence[AuditedLog], part: str) -> Iterator[Step]:
    for log in logs:
        for first in log.ranges():
            yield Step(part, read_bundles, (log.log, log.size, first))


def add_leaves(logs: Sequence[AuditedLog], plan: AuditPlan, pool: StepPool, part: str) -> None:
    """Read every leaf of `logs`, which are checked, into the plan once more: it wants others."""
    numbers = {log.log: log.number for log in logs}
    for step, found in pool.run(_steps(logs, part)):
        plan.add_leaves(numbers[step.arguments[0]], found.runs, found.advisories)
    for log in logs:
        _distrust_changed(log, plan)


def _distrust_changed(log: AuditedLog, plan: AuditPlan) -> None:
    for index in log.changed:
        first = index * TILE_WIDTH
        plan.distrust(log.number, first, first + TILE_WIDTH - 1)


READ_OVER: Final = 500
"""Most offsets between two gaps that one question is about.

A question costs a consumer of its own, as much as some hundred records. A producer that sends each
record in a transaction leaves a gap after each: a question for every one would take hours.
"""


@dataclass(frozen=True, slots=True)
class BrokerView:
    """The broker's view of the records of a store, without a broker here.

    Attributes:
        committed: The next offset of the group that writes each log, committed before the audit
            began.
        shown: Returns the offsets of the records of a log's partition that the broker can still
            show, in order, from the first offset given to the one before the second.
    """

    committed: Mapping[LogId, int]
    shown: Callable[[LogId, int, int], Iterable[int]]


def offsets_without_leaf(logs: Sequence[AuditedLog], broker: BrokerView) -> Iterator[Finding]:
    """Yield the consumed offsets that the broker shows and that have no leaf."""
    for log, gaps in _neighbours(_gaps(logs, broker)):
        shown = broker.shown(log, gaps[0][0], gaps[-1][1])
        for first, last in _without_breaks(_inside(gaps, shown)):
            offsets = f"offset {first}" if first == last else f"offsets {first} to {last}"
            expected = "a leaf of every offset that was consumed"
            found = f"none of {offsets}, which the broker shows"
            yield Finding("OFFSET_WITHOUT_LEAF", log.path, expected, found)


def _gaps(logs: Sequence[AuditedLog], broker: BrokerView) -> Iterator[tuple[LogId, int, int]]:
    """Yield what lies between leaves, and between the last leaf and what was committed."""
    following = dict.fromkeys(broker.committed, 0)
    for audited in logs:
        following[audited.log] = audited.next_offset
        for start, end in audited.gaps:
            yield audited.log, start, end
    for log, start in sorted(following.items()):
        committed = broker.committed.get(log, 0)
        if committed > start:
            yield log, start, committed


def _neighbours(
    gaps: Iterable[tuple[LogId, int, int]],
) -> Iterator[tuple[LogId, list[tuple[int, int]]]]:
    """Yield gaps that one question can be about: those of one log, near each other."""
    asked: list[tuple[int, int]] = []
    of: LogId | None = None
    for log, start, end in gaps:
        if of is not None and (log != of or start - asked[-1][1] > READ_OVER):
            yield of, asked
            asked = []
        of = log
        asked.append((start, end))
    if of is not None:
        yield of, asked


def _inside(gaps: Sequence[tuple[int, int]], offsets: Iterable[int]) -> Iterator[int]:
    """Yield those of `offsets` that lie in a gap; both are in order."""
    remaining = iter(gaps)
    start, end = next(remaining)
    for offset in offsets:
        while offset >= end:
            start, end = next(remaining)
        if offset >= start:
            yield offset


def _without_breaks(offsets: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and the last of each stretch of offsets that follow on each other."""
    # In a stretch, offset and number rise together.
    for _, stretch in groupby(enumerate(offsets), key=lambda pair: pair[1] - pair[0]):
        _, first = next(stretch)
        yield first, max((offset for _, offset in stretch), default=first)  # noqa: B031  # the rest
