"""One step of an audit: a range of entry bundles of a log, read and hashed.

It returns plain values. Whether the leaves are those of the signed root is only known
once all ranges of the log are there.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Final

from pipeline.audit.plan import AdvisoryRow, RunRow
from pipeline.audit.steps import AuditReader
from pipeline.core.layout import date_of
from pipeline.ledger.leaf import LedgerLeaf, parse_leaf
from pipeline.ledger.log_id import LogId
from pipeline.ledger.stored_log import StoredLog
from pipeline.ledger.tlog import EvidenceError
from pipeline.ledger.tlog.merkle import leaf_hash, root_of_hashes
from pipeline.ledger.tlog.recompute import read_hashes
from pipeline.ledger.tlog.tiles import ENTRIES, TILE_WIDTH, Tile, TileReader, parse_bundle

RANGE_BUNDLES: Final = 8
"""Bundles of one step: 2,048 leaves, about 25 ms."""


@dataclass(slots=True)
class BundleRange:
    """What a range of bundles has.

    Attributes:
        roots: Of each full bundle, from its leaves; of one that cannot be read, from its tile.
        partial: Hashes of the bundle that ends the log, if it is in this range.
        doubtful: Indices of bundles that do not give their tile of level 0.
        unreadable: Bundles that are missing or no bundle, with the reason.
        runs: Leaves of runs.
        advisories: Leaves of advisories.
        wrong: Numbers of leaves that no worker writes, with the reason.
        failed: Numbers and offsets of leaves with code INTERNAL_ERROR.
        gaps: Offsets between two leaves, the first one and the one after the last.
        first_offset: Of the first leaf.
        last_offset: Of the last leaf.
    """

    roots: list[bytes] = field(default_factory=list)
    partial: list[bytes] = field(default_factory=list)
    doubtful: list[int] = field(default_factory=list)
    unreadable: list[tuple[int, str]] = field(default_factory=list)
    runs: list[RunRow] = field(default_factory=list)
    advisories: list[AdvisoryRow] = field(default_factory=list)
    wrong: list[tuple[int, str]] = field(default_factory=list)
    failed: list[tuple[int, int]] = field(default_factory=list)
    gaps: list[tuple[int, int]] = field(default_factory=list)
    first_offset: int | None = None
    last_offset: int | None = None

    def follow(self, offset: int) -> bool:
        """Note the offset of the next leaf; return whether it comes after the last."""
        last = self.last_offset
        if last is None:
            self.first_offset = offset
        elif offset <= last:
            return False
        elif offset > last + 1:
            self.gaps.append((last + 1, offset))
        self.last_offset = offset
        return True


def tile_reader(stored: StoredLog) -> TileReader:
    """Return a reader of tiles for which a disk that fails is a tile that cannot be read."""

    def read(tile: Tile) -> bytes:
        try:
            return stored.read_tile(tile)
        except OSError as error:
            raise EvidenceError(
                f"expected {tile}, found what cannot be read ({error.strerror})"
            ) from error

    return read


def read_bundles(reader: AuditReader, log: LogId, size: int, first: int) -> BundleRange:
    """Read at most `RANGE_BUNDLES` bundles of a log of `size` leaves, from index `first` on."""
    read_tile = tile_reader(StoredLog(reader.store.logs, log))
    found = BundleRange()
    end = min(first + RANGE_BUNDLES, -(-size // TILE_WIDTH))
    bundles = [
        Tile(ENTRIES, index, min(TILE_WIDTH, size - index * TILE_WIDTH))
        for index in range(first, end)
    ]
    read = reader.store.files.at_once(partial(_read_bundle, read_tile), bundles)
    for bundle, (kept, entries) in zip(bundles, read, strict=True):
        _add_bundle(log, bundle, kept, entries, found)
    return found


def _read_bundle(
    read_tile: TileReader, bundle: Tile
) -> tuple[list[bytes] | None, list[bytes] | EvidenceError]:
    """Return the hashes that the tile above a bundle has, and the entries of the bundle."""
    kept = read_hashes(Tile(0, bundle.index, bundle.width), read_tile)
    try:
        return kept, parse_bundle(bundle, read_tile(bundle))
    except EvidenceError as error:
        return kept, error


def _add_bundle(
    log: LogId,
    bundle: Tile,
    kept: list[bytes] | None,
    entries: list[bytes] | EvidenceError,
    found: BundleRange,
) -> None:
    if isinstance(entries, EvidenceError):
        # Its tile stands for it: so the other bundles can still be compared with the root.
        found.unreadable.append((bundle.index, str(entries)))
        entries, hashes = [], kept or []
    else:
        hashes = [leaf_hash(entry) for entry in entries]
    if hashes != kept:
        found.doubtful.append(bundle.index)
    if bundle.is_partial:
        found.partial = hashes
    else:
        found.roots.append(root_of_hashes(hashes))
    for place, entry in enumerate(entries):
        _read_leaf(log, bundle.index * TILE_WIDTH + place, entry, found)


def _read_leaf(log: LogId, number: int, entry: bytes, found: BundleRange) -> None:
    try:
        leaf = parse_leaf(entry)
    except EvidenceError as error:
        found.wrong.append((number, str(error)))
        return
    if (leaf.topic, leaf.partition) != (log.topic, log.partition):
        place = f"{leaf.topic}/{leaf.partition}"
        found.wrong.append(
            (number, f"expected a leaf of {log.topic}/{log.partition}, found {place}")
        )
    elif not found.follow(leaf.offset):
        reason = f"expected an offset above {found.last_offset}, found {leaf.offset}"
        found.wrong.append((number, reason))
    else:
        _add_leaf(leaf, number, found)


def _add_leaf(leaf: LedgerLeaf, number: int, found: BundleRange) -> None:
    if leaf.code == "INTERNAL_ERROR":
        found.failed.append((number, leaf.offset))
    # The fields of each kind are checked: with these the others are there too.
    where = (leaf.timestamp_ms, number, leaf.offset)
    if leaf.path is not None:
        is_run, date = leaf.kind == "run", date_of(leaf.path)
        found.runs.append((leaf.run_id, is_run, date, leaf.sha256, leaf.size_bytes, *where))
    elif leaf.advisory_id is not None:
        is_advisory = leaf.kind == "advisory"
        advisory = (leaf.run_id, leaf.advisory_id, is_advisory, leaf.link_sha256, *where)
        found.advisories.append(advisory)
