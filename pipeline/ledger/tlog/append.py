"""Append leaves to a log: the new tiles and the new root (RFC 6962, C2SP tlog-tiles).

It keeps the partial tiles alone, so it needs the same little memory for every log. What it
makes depends on the leaves and the size, never on how the leaves were batched.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Final

from pipeline.ledger.tlog import EvidenceError
from pipeline.ledger.tlog.checkpoints import Checkpoint
from pipeline.ledger.tlog.merkle import CompactRange, root_of_peaks
from pipeline.ledger.tlog.proofs import verified_path
from pipeline.ledger.tlog.tiles import (
    ENTRIES,
    ENTRY_LIMIT_BYTES,
    TILE_HEIGHT,
    TILE_WIDTH,
    Tile,
    TileHashes,
    TileReader,
    check_bundle,
    parse_bundle,
    parse_tile,
    rightmost_tiles,
)

_LEAF_PREFIX: Final = b"\x00"


class _Row:
    """The partial tile of one level.

    Attributes:
        content: Its bytes.
        compact_range: Over its hashes.
        index: Number of full tiles before it.
    """

    __slots__ = ("compact_range", "content", "index")

    def __init__(self, index: int) -> None:
        self.content = bytearray()
        self.compact_range = CompactRange()
        self.index = index

    def extend(self, nodes: Sequence[bytes]) -> None:
        self.content += b"".join(nodes)
        for node in nodes:
            self.compact_range.append(node)

    def start_next(self) -> None:
        self.content = bytearray()
        self.compact_range = CompactRange()
        self.index += 1

    def copy(self) -> "_Row":
        other = _Row(self.index)
        other.content = self.content.copy()
        other.compact_range = self.compact_range.copy()
        return other


class TreeAppender:
    """A log of `size` leaves that takes more.

    Attributes:
        size: Number of leaves.
    """

    def __init__(self) -> None:
        """Start an empty log."""
        self.size = 0
        self._rows: list[_Row] = []
        self._bundle = bytearray()
        self._full: dict[Tile, bytes] = {}
        self._partial_before: frozenset[Tile] = frozenset()

    @classmethod
    def resume(cls, size: int, read_tile: TileReader) -> "TreeAppender":
        """Go on with a log of `size` leaves from its partial tiles.

        The caller compares the root with a signed one.

        Raises:
            EvidenceError: A tile has another form, or the leaves are not those of their tile.
        """
        log = cls()
        log.size = size
        contents = {tile: read_tile(tile) for tile in rightmost_tiles(size)}
        log._partial_before = frozenset(contents)
        while size >> TILE_HEIGHT * len(log._rows):
            count = size >> TILE_HEIGHT * len(log._rows)
            log._rows.append(_Row(count // TILE_WIDTH))
        for tile, content in contents.items():
            if tile.level == ENTRIES:
                _check_leaves(tile, content, contents[Tile(0, tile.index, tile.width)])
                log._bundle += content
            else:
                log._rows[tile.level].extend(parse_tile(tile, content))
        return log

    def extend(self, leaves: Sequence[bytes]) -> None:
        """Append `leaves`.

        Raises:
            EvidenceError: A leaf is longer than a bundle can encode; nothing was appended.
        """
        longest = max(map(len, leaves), default=0)
        if longest > ENTRY_LIMIT_BYTES:
            raise EvidenceError(
                f"expected leaves of at most {ENTRY_LIMIT_BYTES} bytes, found {longest}"
            )
        start = 0
        while start < len(leaves):
            room = TILE_WIDTH - self.size % TILE_WIDTH
            self._extend_tile(leaves[start : start + room])
            start += room

    def _extend_tile(self, leaves: Sequence[bytes]) -> None:
        """Append leaves that all belong to the rightmost tile."""
        if not self._rows:
            self._rows.append(_Row(0))
        row = self._rows[0]
        self._bundle += b"".join([len(leaf).to_bytes(2, "big") + leaf for leaf in leaves])
        # leaf_hash, without its call.
        row.extend([sha256(_LEAF_PREFIX + leaf).digest() for leaf in leaves])
        self.size += len(leaves)
        if row.compact_range.size == TILE_WIDTH:
            self._full[Tile(ENTRIES, row.index)] = bytes(self._bundle)
            self._bundle = bytearray()
            self._close(0)

    def _close(self, level: int) -> None:
        """Put the full tile of `level` aside; its root goes into the row above."""
        row = self._rows[level]
        self._full[Tile(level, row.index)] = bytes(row.content)
        (root,) = row.compact_range.peaks
        row.start_next()
        if level + 1 == len(self._rows):
            self._rows.append(_Row(0))
        above = self._rows[level + 1]
        above.extend([root])
        if above.compact_range.size == TILE_WIDTH:
            self._close(level + 1)

    def root(self) -> bytes:
        """Return the root over all leaves."""
        peaks: list[bytes] = []
        for row in reversed(self._rows):
            peaks += row.compact_range.peaks
        return root_of_peaks(peaks)

    def new_tiles(self) -> dict[Tile, bytes]:
        """Return every tile and bundle that these leaves add: `tiles_of_append`, with bytes."""
        return self._full | {
            tile: self._content(tile)
            for tile in rightmost_tiles(self.size)
            if tile not in self._partial_before
        }

    def _content(self, tile: Tile) -> bytes:
        return bytes(self._bundle if tile.level == ENTRIES else self._rows[tile.level].content)

    def copy(self) -> "TreeAppender":
        """Return the same log, which grows on its own, with no new tiles yet."""
        other = TreeAppender()
        other.size = self.size
        other._rows = [row.copy() for row in self._rows]
        other._bundle = self._bundle.copy()
        other._partial_before = frozenset(rightmost_tiles(self.size))
        return other


def _check_leaves(tile: Tile, bundle: bytes, hashes: bytes) -> None:
    level_0 = Tile(0, tile.index, tile.width)
    check_bundle(tile, parse_bundle(tile, bundle), parse_tile(level_0, hashes))


def verify_append(
    old_size: int,
    verified: Mapping[int, bytes],
    checkpoint: Checkpoint,
    held: Mapping[Tile, bytes],
) -> dict[int, bytes]:
    """Check the tiles of an append as the disk holds them; no leaf is hashed twice.

    A bundle must begin with the bytes that were verified before, and so must its tile of level 0.
    Every leaf after those is hashed again, and each such tile is followed to the root.

    Args:
        old_size: Leaves before it.
        verified: What the append before returned.
        checkpoint: That of the log now.
        held: The new tiles, `tiles_of_append`, as they were read, and others that were.

    Returns:
        The partial tiles of the log now, by level.

    Raises:
        EvidenceError: A tile is not one of this log.
    """
    known_tiles = {tile: verified[tile.level] for tile in rightmost_tiles(old_size)}
    known_tiles |= held
    hashes = TileHashes(checkpoint.size, known_tiles.__getitem__)
    old_index, old_width = divmod(old_size, TILE_WIDTH)
    for tile, bundle in held.items():
        if tile.level != ENTRIES:
            continue
        first = old_width if tile.index == old_index else 0
        known, known_hashes = (verified[ENTRIES], verified[0]) if first else (b"", b"")
        nodes = hashes.tile(0, tile.index)
        if not bundle.startswith(known) or b"".join(nodes[:first]) != known_hashes:
            raise EvidenceError(f"expected {tile} to begin as it was verified before")
        added = Tile(ENTRIES, tile.index, tile.width - first)
        check_bundle(tile, parse_bundle(added, bundle[len(known) :]), nodes[first:], first)
        # A path holds a hash over every other leaf: one that verifies vouches for the whole tile.
        verified_path(tile.index * TILE_WIDTH, checkpoint, hashes.node)
    return {tile.level: known_tiles[tile] for tile in rightmost_tiles(checkpoint.size)}
