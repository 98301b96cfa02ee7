"""The tiles of a log: their sizes, paths and contents (C2SP tlog-tiles).

A tile holds up to 256 hashes of one level, each the root of a full tile below it; an entry
bundle holds the leaves under a tile of level 0. The rightmost of a level may be partial.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Final

from pipeline.ledger.tlog import EvidenceError
from pipeline.ledger.tlog.merkle import HASH_BYTES, leaf_hash, root_of_hashes

TILE_HEIGHT: Final = 8
TILE_WIDTH: Final = 256
"""Hashes of a full tile (tlog-tiles, "Merkle Tree")."""

ENTRIES: Final = -1
"""Stands for the level of entry bundles, as in Go's sumdb/tlog."""

ENTRY_LIMIT_BYTES: Final = 65_535
"""A bundle has two bytes for the length of an entry (tlog-tiles, "Log entries")."""

_LEVEL_LIMIT: Final = 63
_PATH = re.compile(
    r"tile/(?P<level>entries|0|[1-9][0-9]?)/(?P<index>(?:x[0-9]{3}/)*[0-9]{3})"
    r"(?:\.p/(?P<width>[1-9][0-9]{0,2}))?",
    re.ASCII,
)
_CACHED_TILES: Final = 64


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """The place of one tile or bundle.

    Attributes:
        level: 0 to 63, or ENTRIES.
        index: From the left, within its level.
        width: Number of hashes or entries; below 256 the tile is partial.
    """

    level: int
    index: int
    width: int = TILE_WIDTH

    @property
    def is_partial(self) -> bool:
        """Whether the tile can still grow."""
        return self.width < TILE_WIDTH

    @property
    def full(self) -> "Tile":
        """The same tile once it is full."""
        return Tile(self.level, self.index)

    @property
    def partials(self) -> str:
        """The folder of this tile's partial forms."""
        return f"{self.full}.p"

    @property
    def folder(self) -> str:
        """The folder of the full tile."""
        return str(self.full).rpartition("/")[0]

    def __str__(self) -> str:
        """Return its path, `tile/<L>/<N>[.p/<W>]` (tlog-tiles, "Merkle Tree")."""
        level = "entries" if self.level == ENTRIES else str(self.level)
        suffix = f".p/{self.width}" if self.is_partial else ""
        return f"tile/{level}/{_index_path(self.index)}{suffix}"


def _index_path(index: int) -> str:
    """Return `index` in elements of three digits, all but the last after an `x`."""
    rest, last = divmod(index, 1000)
    path = f"{last:03d}"
    while rest:
        rest, part = divmod(rest, 1000)
        path = f"x{part:03d}/{path}"
    return path


def parse_tile_path(path: str) -> Tile:
    """Return the tile at `path`.

    Raises:
        EvidenceError: No tile has this path.
    """
    match = _PATH.fullmatch(path)
    if match is not None:
        level = ENTRIES if match["level"] == "entries" else int(match["level"])
        index = int(re.sub("[x/]", "", match["index"]))
        width = int(match["width"] or TILE_WIDTH)
        tile = Tile(level, index, width)
        # The way back refuses leading zeroes, and a full width that is written out.
        if level <= _LEVEL_LIMIT and width <= TILE_WIDTH and str(tile) == path:
            return tile
    raise EvidenceError(f"expected the path of a tile, found {path!r}")


def rightmost_tiles(size: int) -> Iterator[Tile]:
    """Yield the partial tiles of a log of `size` leaves, the bundle first.

    Level l has `floor(size / 256**l) mod 256` hashes in its partial tile, and none where that
    is zero (tlog-tiles, "Partial Tiles").
    """
    for level, count in _level_counts(size):
        if count % TILE_WIDTH:
            yield Tile(level, count // TILE_WIDTH, count % TILE_WIDTH)


def last_tiles(size: int) -> Iterator[Tile]:
    """Yield the last tile of each level, full or partial, the bundle first."""
    for level, count in _level_counts(size):
        yield Tile(level, (count - 1) // TILE_WIDTH, (count - 1) % TILE_WIDTH + 1)


def bundles_of(size: int) -> int:
    """Return how many bundles hold the first `size` leaves of a log."""
    return -(-size // TILE_WIDTH)


def tiles_of_append(old_size: int, size: int) -> Iterator[Tile]:
    """Yield the tiles that a log writes when it grows: new full ones, and new partial ones."""
    old_counts = dict(_level_counts(old_size))
    for level, count in _level_counts(size):
        first = old_counts.get(level, 0)
        for index in range(first // TILE_WIDTH, count // TILE_WIDTH):
            yield Tile(level, index)
        if count % TILE_WIDTH and count != first:
            yield Tile(level, count // TILE_WIDTH, count % TILE_WIDTH)


def _level_counts(size: int) -> Iterator[tuple[int, int]]:
    """Yield (level, number of hashes on it) from the bundles up, while there are any."""
    if size:
        yield ENTRIES, size
    level = 0
    while size:
        yield level, size
        level += 1
        size //= TILE_WIDTH


def parse_tile(tile: Tile, content: bytes) -> list[bytes]:
    """Return the hashes of a tile that is no bundle.

    Raises:
        EvidenceError: It has another number of bytes.
    """
    expected = tile.width * HASH_BYTES
    if len(content) != expected:
        raise EvidenceError(f"expected {expected} bytes in {tile}, found {len(content)}")
    return [content[start : start + HASH_BYTES] for start in range(0, expected, HASH_BYTES)]


def encode_entry(entry: bytes) -> bytes:
    """Return `entry` as it stands in a bundle: after its length, two bytes, big-endian.

    Raises:
        EvidenceError: It is too long.
    """
    if len(entry) > ENTRY_LIMIT_BYTES:
        raise EvidenceError(
            f"expected an entry of at most {ENTRY_LIMIT_BYTES} bytes, found {len(entry)}"
        )
    return len(entry).to_bytes(2, "big") + entry


def parse_bundle(tile: Tile, content: bytes) -> list[bytes]:
    """Return the entries of a bundle (tlog-tiles, "Log entries").

    Raises:
        EvidenceError: It does not hold exactly as many whole entries as its width.
    """
    entries = []
    start = 0
    while start < len(content):
        end = start + 2 + int.from_bytes(content[start : start + 2], "big")
        if end > len(content) or start + 2 > len(content):
            raise EvidenceError(
                f"expected whole entries in {tile}, found a cut one at byte {start}"
            )
        entries.append(content[start + 2 : end])
        start = end
    if len(entries) != tile.width:
        raise EvidenceError(f"expected {tile.width} entries in {tile}, found {len(entries)}")
    return entries


def cut_tile(tile: Tile, wider: Tile, content: bytes) -> bytes:
    """Return the bytes of `tile` from those of a wider form of it, which begins with them.

    tlog-tiles ("Partial Tiles") has readers fall back to it where the partial tile is gone.

    Raises:
        EvidenceError: `content` is not a whole tile or bundle of the wider form.
    """
    if tile.level == ENTRIES:
        return b"".join(map(encode_entry, parse_bundle(wider, content)[: tile.width]))
    return b"".join(parse_tile(wider, content)[: tile.width])


def check_bundle(
    tile: Tile, entries: Iterable[bytes], hashes: Iterable[bytes], first: int = 0
) -> None:
    """Check that `entries` hash to the tile of level 0 with the same place.

    Args:
        tile: The bundle.
        entries: Those from `first` on.
        hashes: Likewise.
        first: The place in the bundle of the first of both.

    Raises:
        EvidenceError: One does not.
    """
    for position, (entry, expected) in enumerate(zip(entries, hashes, strict=True), first):
        if leaf_hash(entry) != expected:
            number = tile.index * TILE_WIDTH + position
            raise EvidenceError(
                f"expected leaf {number} in {tile} to have the hash {expected.hex()}"
            )


TileReader = Callable[[Tile], bytes]
"""Returns the bytes of a tile or bundle, exactly as wide as asked for."""


class TileHashes:
    """The hashes of a log of `size` leaves, from its tiles, each read once.

    They are as good as the tiles: what is made of them is checked against a root.
    """

    def __init__(self, size: int, read_tile: TileReader) -> None:
        self.tile = lru_cache(maxsize=_CACHED_TILES)(partial(_load_tile, size, read_tile))
        """Returns the hashes of the tile at (level, index), as wide as the size makes it."""

    def node(self, level: int, index: int) -> bytes:
        """Return the hash of the full subtree at (level, index): a `NodeReader`."""
        tile_level, height = divmod(level, TILE_HEIGHT)
        tile_index, start = divmod(index << height, TILE_WIDTH)
        return root_of_hashes(self.tile(tile_level, tile_index)[start : start + (1 << height)])


def _load_tile(size: int, read_tile: TileReader, level: int, index: int) -> list[bytes]:
    tile = tile_at(size, level, index)
    return parse_tile(tile, read_tile(tile))


def tile_at(size: int, level: int, index: int) -> Tile:
    """Return the tile or bundle at (level, index), as wide as a log of `size` leaves makes it."""
    count = size >> TILE_HEIGHT * max(level, 0)
    return Tile(level, index, min(TILE_WIDTH, count - index * TILE_WIDTH))
