"""Merkle tree hashes over SHA-256, and the root of a tree that grows (RFC 6962 section 2.1).

A tree of n leaves is cut into full subtrees, largest first: its peaks. They are all that its
root and an append need.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = sha256().digest()
"""The root of no leaves is the hash of no bytes (RFC 6962 section 2.1)."""

_LEAF_PREFIX: Final = b"\x00"
_NODE_PREFIX: Final = b"\x01"


def leaf_hash(leaf: bytes) -> bytes:
    """Return the hash of a leaf: SHA-256 over 0x00 and its bytes (RFC 6962 section 2.1)."""
    return sha256(_LEAF_PREFIX + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of two subtrees: SHA-256 over 0x01 and both (RFC 6962 section 2.1)."""
    return sha256(_NODE_PREFIX + left + right).digest()


def root_of_peaks(peaks: Sequence[bytes]) -> bytes:
    """Return the root of the tree whose full subtrees are `peaks`, largest first."""
    if not peaks:
        return EMPTY_ROOT
    root = peaks[-1]
    for peak in reversed(peaks[:-1]):
        root = node_hash(peak, root)
    return root


class CompactRange:
    """A compact range from the first leaf: all that appending needs. One hash a leaf, on average.

    Attributes:
        size: Number of leaves.
        peaks: Hashes of the full subtrees, largest first; one for each bit set in `size`.
    """

    __slots__ = ("peaks", "size")

    def __init__(self) -> None:
        self.size = 0
        self.peaks: list[bytes] = []

    def append(self, node: bytes) -> None:
        """Add the hash of a leaf, or of a subtree as large as all others added."""
        peaks = self.peaks
        rest = self.size
        # Each low bit set is a peak as large as what is added: the two become one.
        while rest & 1:
            # node_hash, without a call: this is the inner loop of every append.
            node = sha256(_NODE_PREFIX + peaks.pop() + node).digest()
            rest >>= 1
        peaks.append(node)
        self.size += 1

    def root(self) -> bytes:
        """Return the root over everything added."""
        return root_of_peaks(self.peaks)

    def copy(self) -> "CompactRange":
        """Return one that grows on its own."""
        other = CompactRange()
        other.size = self.size
        other.peaks = self.peaks.copy()
        return other


def peaks_of_hashes(nodes: Iterable[bytes]) -> list[bytes]:
    """Return the peaks over `nodes`, the hashes of leaves or of subtrees of one size."""
    compact_range = CompactRange()
    for node in nodes:
        compact_range.append(node)
    return compact_range.peaks


def root_of_hashes(nodes: Iterable[bytes]) -> bytes:
    """Return the root over them."""
    return root_of_peaks(peaks_of_hashes(nodes))
