"""Proofs about Merkle trees: that a leaf is in one, that one begins another.

RFC 6962 sections 2.1.1 and 2.1.2 define a proof, RFC 9162 sections 2.1.3.2 and 2.1.4.2
how it is checked. Node (level, index) is the full subtree over the leaves from
`index * 2**level` to `(index + 1) * 2**level`.

A `TlogProof` is the proof of one leaf that needs nothing else: index, path and checkpoint (C2SP
tlog-proof).
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from pipeline.ledger.tlog import EvidenceError
from pipeline.ledger.tlog.checkpoints import Checkpoint, open_checkpoint
from pipeline.ledger.tlog.merkle import EMPTY_ROOT, HASH_BYTES, leaf_hash, node_hash, root_of_peaks
from pipeline.ledger.tlog.notes import VerifierKey, decode_base64, encode_base64

NodeReader = Callable[[int, int], bytes]
"""Returns the hash of the full subtree at (level, index)."""


def root_of_size(size: int, read: NodeReader) -> bytes:
    """Return the root of the first `size` leaves."""
    return _range_root(0, size, read) if size else EMPTY_ROOT


def prove_inclusion(index: int, size: int, read: NodeReader) -> list[bytes]:
    """Return the audit path of leaf `index` in the tree of `size` leaves, lowest hash first.

    PATH(m, D[n]) of RFC 6962 section 2.1.1, read from full subtrees.

    Raises:
        EvidenceError: There is no such leaf.
    """
    if not 0 <= index < size:
        raise EvidenceError(f"expected a leaf below {size}, found {index}")
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(_range_root(middle, end, read))
            end = middle
        else:
            path.append(_range_root(start, middle, read))
            start = middle
    path.reverse()
    return path


def prove_consistency(old_size: int, size: int, read: NodeReader) -> list[bytes]:
    """Return the proof that the tree of `old_size` leaves begins the one of `size`.

    PROOF(m, D[n]) of RFC 6962 section 2.1.2; empty for equal sizes and for an empty old tree,
    which begins every tree.

    Raises:
        EvidenceError: The old tree is the larger one.
    """
    if not 0 <= old_size <= size:
        raise EvidenceError(f"expected an old size from 0 to {size}, found {old_size}")
    if old_size in {0, size}:
        return []
    proof: list[bytes] = []
    start, end = 0, size
    # SUBPROOF: down the edge of the old tree, until its last subtree stands alone.
    while end != old_size:
        middle = start + _split(end - start)
        if old_size <= middle:
            proof.append(_range_root(middle, end, read))
            end = middle
        else:
            proof.append(_range_root(start, middle, read))
            start = middle
    # The verifier knows the old root itself, so a subtree that is the old tree is left out.
    if start:
        proof.append(_range_root(start, end, read))
    proof.reverse()
    return proof


def verify_inclusion(
    leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes
) -> None:
    """Check that the leaf with hash `leaf` is at `index` in the tree of `size` leaves.

    The procedure of RFC 9162 section 2.1.3.2.

    Raises:
        EvidenceError: It is not, or the path does not show it.
    """
    # 1. The index is one of the tree.
    if not 0 <= index < size:
        raise EvidenceError(f"expected a leaf below {size}, found {index}")
    _check_hashes([leaf, root, *path])
    # 2. and 3. Start at the leaf, at the left (0) or right (1) of its sibling.
    node, last, found = index, size - 1, leaf
    # 4. Hash upwards along the path.
    for sibling in path:
        if last == 0:
            raise EvidenceError(f"expected a shorter path, found {len(path)} hashes")
        if node & 1 or node == last:
            found = node_hash(sibling, found)
            node, last = _climb_right(node, last)
        else:
            found = node_hash(found, sibling)
        node >>= 1
        last >>= 1
    # 5. At the top is the root.
    _check_reached(last, found, root)


def verified_path(index: int, checkpoint: Checkpoint, read: NodeReader) -> list[bytes]:
    """Return the audit path of the leaf at `index`, followed to the root of `checkpoint`.

    Raises:
        EvidenceError: It leads to another.
    """
    path = prove_inclusion(index, checkpoint.size, read)
    verify_inclusion(read(0, index), index, checkpoint.size, path, checkpoint.root)
    return path


def verify_consistency(
    old_size: int, size: int, proof: Sequence[bytes], old_root: bytes, root: bytes
) -> None:
    """Check that the tree with `old_root` begins the tree with `root`.

    The procedure of RFC 9162 section 2.1.4.2, and the two cases that need no proof.

    Raises:
        EvidenceError: It does not, or the proof does not show it.
    """
    if not 0 <= old_size <= size:
        raise EvidenceError(f"expected an old size from 0 to {size}, found {old_size}")
    _check_hashes([old_root, root, *proof])
    if old_size in {0, size}:
        _check_trivial(old_size, size, proof, old_root, root)
        return
    # 1. A proof for two different sizes has a hash.
    if not proof:
        raise EvidenceError("expected a proof, found no hash")
    # 2. An old tree that is one full subtree is known by its root.
    hashes = [old_root, *proof] if _is_power_of_two(old_size) else list(proof)
    # 3. and 4. Start at the last full subtree that both trees share.
    node, last = old_size - 1, size - 1
    node, last = _climb_ones(node, last)
    # 5. Both roots start from the first hash.
    old_found = found = hashes[0]
    # 6. Hash upwards; what lies left of the edge belongs to both trees.
    for sibling in hashes[1:]:
        if last == 0:
            raise EvidenceError(f"expected a shorter proof, found {len(proof)} hashes")
        if node & 1 or node == last:
            old_found = node_hash(sibling, old_found)
            found = node_hash(sibling, found)
            node, last = _climb_right(node, last)
        else:
            found = node_hash(found, sibling)
        node >>= 1
        last >>= 1
    # 7. At the top are both roots.
    _check_reached(0, old_found, old_root)
    _check_reached(last, found, root)


def _check_trivial(
    old_size: int, size: int, proof: Sequence[bytes], old_root: bytes, root: bytes
) -> None:
    if proof:
        raise EvidenceError(
            f"expected no hash in the proof from {old_size} to {size}, found {len(proof)}"
        )
    _check_reached(0, old_root, root if old_size == size else EMPTY_ROOT)
    if size == 0:
        _check_reached(0, root, EMPTY_ROOT)


def _check_hashes(hashes: Iterable[bytes]) -> None:
    for found in hashes:
        if len(found) != HASH_BYTES:
            raise EvidenceError(f"expected hashes of {HASH_BYTES} bytes, found one of {len(found)}")


def _check_reached(last: int, found: bytes, root: bytes) -> None:
    if last != 0:
        raise EvidenceError("expected a path up to the root, found one that ends below it")
    if found != root:
        raise EvidenceError(f"expected the root {root.hex()}, found {found.hex()}")


def _climb_right(node: int, last: int) -> tuple[int, int]:
    """Skip the levels on which a node at the right edge has no sibling."""
    while node and not node & 1:
        node >>= 1
        last >>= 1
    return node, last


def _climb_ones(node: int, last: int) -> tuple[int, int]:
    while node & 1:
        node >>= 1
        last >>= 1
    return node, last


def _is_power_of_two(number: int) -> bool:
    return number & (number - 1) == 0


def _split(width: int) -> int:
    """Return the largest power of two below `width`, which is above 1 (RFC 6962 section 2.1)."""
    return 1 << (width - 1).bit_length() - 1


def _range_root(start: int, end: int, read: NodeReader) -> bytes:
    """Return the root over the leaves from `start` to `end`; a subtree that the RFC cuts off.

    Such a subtree starts at a multiple of its width rounded up to a power of two, so its peaks
    are nodes of the tree.
    """
    peaks = []
    while start < end:
        level = (end - start).bit_length() - 1
        peaks.append(read(level, start >> level))
        start += 1 << level
    return root_of_peaks(peaks)


_HEADER: Final = "c2sp.org/tlog-proof@v1"
_INDEX = re.compile(r"index (0|[1-9][0-9]{0,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class TlogProof:
    """Where a leaf is, and why.

    Attributes:
        index: Of the leaf, from zero.
        path: From its sibling up (RFC 6962 section 2.1.1).
        checkpoint: The signed note, as the log published it.
    """

    index: int
    path: tuple[bytes, ...]
    checkpoint: bytes

    def __bytes__(self) -> bytes:
        lines = [_HEADER, f"index {self.index}", *map(encode_base64, self.path), "", ""]
        return "\n".join(lines).encode() + self.checkpoint

    def verify(
        self, leaf: bytes, keys: Iterable[VerifierKey], *, origin: str | None = None
    ) -> Checkpoint:
        """Check that the checkpoint, signed by one of `keys`, covers `leaf`; return it.

        Raises:
            EvidenceError: It does not.
        """
        checkpoint = open_checkpoint(self.checkpoint, keys, origin=origin)
        verify_inclusion(leaf_hash(leaf), self.index, checkpoint.size, self.path, checkpoint.root)
        return checkpoint


def parse_tlog_proof(content: bytes) -> TlogProof:
    """Return the proof in `content` (tlog-proof, "Format"), nothing checked yet.

    Without the optional `extra` line, which we never write: nothing vouches for it.

    Raises:
        EvidenceError: It is not of the form.
    """
    head, separator, checkpoint = content.partition(b"\n\n")
    try:
        header, index_line, *hashes = head.decode("ascii").split("\n")
    except ValueError as error:
        raise EvidenceError("expected a header and an index in a proof") from error
    match = _INDEX.fullmatch(index_line)
    if header != _HEADER or match is None or not separator:
        raise EvidenceError(f"expected {_HEADER}, an index and an empty line in a proof")
    return TlogProof(int(match[1]), tuple(map(decode_base64, hashes)), checkpoint)
