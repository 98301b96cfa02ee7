"""Proofs: equal to the definition, each one verifies, and none does with any part changed."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.ledger.tlog import EvidenceError
from pipeline.ledger.tlog.merkle import EMPTY_ROOT, leaf_hash
from pipeline.ledger.tlog.proofs import (
    prove_consistency,
    prove_inclusion,
    root_of_size,
    verify_consistency,
    verify_inclusion,
)
from tests.ledger.tlog.trees import (
    CT_CONSISTENCY,
    CT_INCLUSION,
    CT_LEAVES,
    consistency_by_definition,
    path_by_definition,
    reader_of,
    root_by_definition,
)

LEAVES = [b"leaf %d" % number for number in range(70)]
READ = reader_of(LEAVES)
ROOTS = [root_by_definition(LEAVES[:size]) for size in range(len(LEAVES) + 1)]
SIZES = st.integers(1, len(LEAVES))


@pytest.mark.parametrize(("place", "expected"), CT_INCLUSION.items())
def test_the_published_inclusion_proofs(place: tuple[int, int], expected: list[str]) -> None:
    found = prove_inclusion(*place, reader_of(CT_LEAVES))
    assert [node.hex() for node in found] == expected


@pytest.mark.parametrize(("sizes", "expected"), CT_CONSISTENCY.items())
def test_the_published_consistency_proofs(sizes: tuple[int, int], expected: list[str]) -> None:
    found = prove_consistency(*sizes, reader_of(CT_LEAVES))
    assert [node.hex() for node in found] == expected


def test_every_inclusion_proof_is_that_of_the_definition_and_verifies() -> None:
    for size in range(1, len(LEAVES) + 1):
        for index in range(size):
            path = prove_inclusion(index, size, READ)
            assert path == path_by_definition(index, LEAVES[:size])
            verify_inclusion(leaf_hash(LEAVES[index]), index, size, path, ROOTS[size])


def test_every_consistency_proof_is_that_of_the_definition_and_verifies() -> None:
    for size in range(1, len(LEAVES) + 1):
        for old_size in range(1, size + 1):
            proof = prove_consistency(old_size, size, READ)
            assert proof == consistency_by_definition(old_size, LEAVES[:size])
            verify_consistency(old_size, size, proof, ROOTS[old_size], ROOTS[size])


def test_the_root_of_every_size_comes_from_full_subtrees() -> None:
    assert [root_of_size(size, READ) for size in range(len(LEAVES) + 1)] == ROOTS


def changed_hashes(hashes: list[bytes]) -> Iterator[list[bytes]]:
    """Yield the list with a bit flipped anywhere, one left out, one more, two swapped."""
    for place, node in enumerate(hashes):
        for changed in changes_of(node):
            yield [*hashes[:place], changed, *hashes[place + 1 :]]
        yield [*hashes[:place], *hashes[place + 1 :]]
        yield [*hashes[:place], node, *hashes[place:]]
        if place and node != hashes[place - 1]:
            yield [*hashes[: place - 1], node, hashes[place - 1], *hashes[place + 1 :]]
    yield [*hashes, b"\x00" * 32]
    yield [b"\x00" * 32, *hashes]


def changes_of(node: bytes) -> Iterator[bytes]:
    """Yield `node` with a bit flipped, and a byte shorter or longer."""
    for bit in (0, 100, 255):
        yield (int.from_bytes(node, "big") ^ (1 << bit)).to_bytes(32, "big")
    yield node[:-1]
    yield node + b"\x00"


@given(st.data())
def test_no_inclusion_proof_verifies_with_any_part_changed(data: st.DataObject) -> None:
    size = data.draw(SIZES)
    index = data.draw(st.integers(0, size - 1))
    leaf, path, root = leaf_hash(LEAVES[index]), prove_inclusion(index, size, READ), ROOTS[size]
    for other in changed_hashes(path):
        with pytest.raises(EvidenceError):
            verify_inclusion(leaf, index, size, other, root)
    for wrong_leaf in changes_of(leaf):
        with pytest.raises(EvidenceError):
            verify_inclusion(wrong_leaf, index, size, path, root)
    for wrong_root in changes_of(root):
        with pytest.raises(EvidenceError):
            verify_inclusion(leaf, index, size, path, wrong_root)
    for wrong_index in {*range(-1, size + 2)} - {index}:
        with pytest.raises(EvidenceError):
            verify_inclusion(leaf, wrong_index, size, path, root)


@given(st.data())
def test_no_consistency_proof_verifies_with_any_part_changed(data: st.DataObject) -> None:
    size = data.draw(SIZES)
    old_size = data.draw(st.integers(1, size))
    proof, old, new = prove_consistency(old_size, size, READ), ROOTS[old_size], ROOTS[size]
    for other in changed_hashes(proof):
        with pytest.raises(EvidenceError):
            verify_consistency(old_size, size, other, old, new)
    for wrong_old in changes_of(old):
        with pytest.raises(EvidenceError):
            verify_consistency(old_size, size, proof, wrong_old, new)
    for wrong_new in changes_of(new):
        with pytest.raises(EvidenceError):
            verify_consistency(old_size, size, proof, old, wrong_new)
    for wrong_size in (-1, 0, old_size - 1, old_size + 1, size + 1):
        if wrong_size != old_size:
            with pytest.raises(EvidenceError):
                verify_consistency(wrong_size, size, proof, old, new)


def test_a_proof_of_another_size_is_refused() -> None:
    """A path may fit several sizes of the same shape: the signed size and root go together."""
    refused = 0
    for size in range(1, 40):
        for index in range(size):
            path = prove_inclusion(index, size, READ)
            for other in {*range(1, 41)} - {size}:
                with pytest.raises(EvidenceError):
                    verify_inclusion(leaf_hash(LEAVES[index]), index, other, path, ROOTS[other])
                refused += 1
    assert refused > 30_000


def test_what_needs_no_proof_takes_none() -> None:
    verify_consistency(0, 0, [], EMPTY_ROOT, EMPTY_ROOT)
    verify_consistency(0, 9, [], EMPTY_ROOT, ROOTS[9])
    verify_consistency(9, 9, [], ROOTS[9], ROOTS[9])
    for old_size, size, proof, old, new in (
        (0, 9, [ROOTS[1]], EMPTY_ROOT, ROOTS[9]),
        (0, 9, [], ROOTS[1], ROOTS[9]),
        (0, 0, [], EMPTY_ROOT, ROOTS[1]),
        (0, 0, [], ROOTS[1], ROOTS[1]),
        (9, 9, [ROOTS[1]], ROOTS[9], ROOTS[9]),
        (9, 9, [], ROOTS[9], ROOTS[8]),
        (5, 9, [], ROOTS[5], ROOTS[9]),
    ):
        with pytest.raises(EvidenceError):
            verify_consistency(old_size, size, proof, old, new)


@pytest.mark.parametrize(("index", "size"), [(-1, 5), (5, 5), (0, 0)])
def test_no_proof_is_made_of_a_leaf_that_is_not_there(index: int, size: int) -> None:
    with pytest.raises(EvidenceError, match=f"expected a leaf below {size}, found {index}"):
        prove_inclusion(index, size, READ)


@pytest.mark.parametrize(("old_size", "size"), [(-1, 5), (6, 5)])
def test_no_proof_is_made_of_a_tree_that_shrinks(old_size: int, size: int) -> None:
    with pytest.raises(EvidenceError, match="expected an old size from 0 to 5"):
        prove_consistency(old_size, size, READ)
