"""Roots: the published vectors, and the definition of RFC 6962 itself on every size."""

from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from pipeline.ledger.tlog.merkle import (
    EMPTY_ROOT,
    CompactRange,
    leaf_hash,
    node_hash,
    root_of_hashes,
    root_of_peaks,
)
from tests.ledger.tlog.trees import CT_LEAVES, CT_ROOTS, root_by_definition


def compact_range_of(leaves: list[bytes]) -> CompactRange:
    compact_range = CompactRange()
    for leaf in leaves:
        compact_range.append(leaf_hash(leaf))
    return compact_range


def test_the_published_roots_of_certificate_transparency() -> None:
    for size, expected in enumerate(CT_ROOTS):
        assert compact_range_of(CT_LEAVES[:size]).root().hex() == expected, size
        assert root_by_definition(CT_LEAVES[:size]).hex() == expected, size


def test_leaves_and_nodes_are_hashed_apart() -> None:
    # RFC 6962 section 2.1: the prefixes give second preimage resistance.
    assert leaf_hash(b"L123456") == sha256(b"\x00L123456").digest()
    assert node_hash(b"N123", b"N456") == sha256(b"\x01N123N456").digest()


def test_no_leaf_has_the_hash_of_nothing() -> None:
    assert root_of_peaks([]) == root_of_hashes([]) == EMPTY_ROOT == sha256(b"").digest()


@given(st.lists(st.binary(max_size=9), max_size=600))
def test_the_root_is_that_of_the_definition(leaves: list[bytes]) -> None:
    assert compact_range_of(leaves).root() == root_by_definition(leaves)


@given(st.lists(st.binary(max_size=3), max_size=70), st.lists(st.binary(max_size=3), max_size=70))
def test_a_copy_grows_on_its_own(leaves: list[bytes], more: list[bytes]) -> None:
    first = compact_range_of(leaves)
    root = first.root()
    second = first.copy()
    for leaf in more:
        second.append(leaf_hash(leaf))
    assert first.root() == root
    assert second.root() == root_by_definition(leaves + more)


def test_there_is_a_peak_for_each_bit_of_the_size() -> None:
    compact_range = CompactRange()
    for size in range(1, 1000):
        compact_range.append(b"\x00" * 32)
        assert (compact_range.size, len(compact_range.peaks)) == (size, size.bit_count())
