"""The verifier's Merkle trees, notes, proofs and JSON say what those of the program say."""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.json.canonical import canonical_json
from pipeline.core.json.strict import InvalidJsonError, parse_object
from pipeline.evidence.evidence import consistency_proof
from pipeline.evidence.verifier import verify
from pipeline.evidence.verifier.verify import RefusedError, UnreadableError
from pipeline.ledger.tlog import EvidenceError, notes
from pipeline.ledger.tlog import checkpoints as trusted_checkpoints
from pipeline.ledger.tlog import proofs as merkle_proofs
from pipeline.ledger.tlog import proofs as tlog_proof
from pipeline.ledger.tlog.checkpoints import Checkpoint, parse_checkpoint, sign_checkpoint
from pipeline.ledger.tlog.merkle import leaf_hash
from pipeline.ledger.tlog.proofs import TlogProof
from tests.golden.test_golden import ENTRIES, artifact_bytes
from tests.json_values import json_objects
from tests.ledger.tlog.signers import signer
from tests.ledger.tlog.trees import (
    CT_CONSISTENCY,
    CT_INCLUSION,
    CT_LEAVES,
    CT_ROOTS,
    reader_of,
    root_by_definition,
)

LEAVES = [b"leaf %d" % number for number in range(40)]
READ = reader_of(LEAVES)
ROOTS = [root_by_definition(LEAVES[:size]) for size in range(len(LEAVES) + 1)]
HASHES = st.sampled_from([*ROOTS, *map(leaf_hash, LEAVES)])
CHECKPOINT = Checkpoint("rmos/" + "0" * 32 + "/1/t/0", 40, ROOTS[40])
NOTE = sign_checkpoint(CHECKPOINT, [signer()])
PROOF = TlogProof(17, tuple(merkle_proofs.prove_inclusion(17, 40, READ)), NOTE)
CONSISTENCY = consistency_proof(23, merkle_proofs.prove_consistency(23, 40, READ), NOTE)


def refusal(check: Callable[[], object]) -> bool:
    try:
        check()
    except (EvidenceError, InvalidJsonError, RefusedError, UnreadableError):
        return True
    return False


@pytest.mark.parametrize(("place", "path"), CT_INCLUSION.items())
def test_the_published_inclusion_proofs(place: tuple[int, int], path: list[str]) -> None:
    index, size = place
    hashes = [bytes.fromhex(each) for each in path]
    root = bytes.fromhex(CT_ROOTS[size])
    verify.verify_inclusion(verify.leaf_hash(CT_LEAVES[index]), index, size, hashes, root)


@pytest.mark.parametrize(("sizes", "proof"), CT_CONSISTENCY.items())
def test_the_published_consistency_proofs(sizes: tuple[int, int], proof: list[str]) -> None:
    old, new = (bytes.fromhex(CT_ROOTS[size]) for size in sizes)
    verify.verify_consistency(*sizes, [bytes.fromhex(each) for each in proof], old, new)


def test_every_proof_of_small_trees_verifies() -> None:
    for size in range(1, len(LEAVES) + 1):
        for index in range(size):
            path = merkle_proofs.prove_inclusion(index, size, READ)
            verify.verify_inclusion(leaf_hash(LEAVES[index]), index, size, path, ROOTS[size])
        for old in range(size + 1):
            proof = merkle_proofs.prove_consistency(old, size, READ)
            verify.verify_consistency(old, size, proof, ROOTS[old], ROOTS[size])


def test_no_proof_verifies_with_a_root_or_a_size_changed() -> None:
    for old in range(1, 23):
        proof = merkle_proofs.prove_consistency(old, 23, READ)
        for wrong in (
            (old, 23, proof, ROOTS[old + 1], ROOTS[23]),
            (old, 23, proof, ROOTS[old], ROOTS[24]),
            (old + 1, 23, proof, ROOTS[old], ROOTS[23]),
            (old, 23, proof[:-1], ROOTS[old], ROOTS[23]),
            (old, 23, [*proof, ROOTS[1]], ROOTS[old], ROOTS[23]),
        ):
            with pytest.raises(RefusedError):
                verify.verify_consistency(*wrong)


@given(st.data())
def test_both_refuse_the_same_inclusion_proofs(data: st.DataObject) -> None:
    size = data.draw(st.integers(0, 41))
    index = data.draw(st.integers(-1, 41))
    path = data.draw(st.lists(HASHES, max_size=8))
    if 0 <= index < size <= 40 and data.draw(st.booleans()):
        path = merkle_proofs.prove_inclusion(index, size, READ)
    leaf, root = data.draw(HASHES), data.draw(HASHES)
    if 0 <= index < 40 and data.draw(st.booleans()):
        leaf, root = leaf_hash(LEAVES[index]), ROOTS[min(size, 40)]
    arguments = (leaf, index, size, path, root)
    ours = refusal(lambda: merkle_proofs.verify_inclusion(*arguments))
    assert refusal(lambda: verify.verify_inclusion(*arguments)) == ours


def test_both_refuse_another_root_of_an_empty_tree() -> None:
    arguments = (0, 0, [], verify.EMPTY_ROOT, b"x" * 32)
    assert refusal(lambda: merkle_proofs.verify_consistency(*arguments))
    assert refusal(lambda: verify.verify_consistency(*arguments))


@given(st.data())
def test_both_refuse_the_same_consistency_proofs(data: st.DataObject) -> None:
    old, size = data.draw(st.integers(-1, 41)), data.draw(st.integers(0, 41))
    proof = data.draw(st.lists(HASHES, max_size=8))
    if 0 <= old <= size <= 40 and data.draw(st.booleans()):
        proof = merkle_proofs.prove_consistency(old, size, READ)
    roots = data.draw(HASHES), data.draw(HASHES)
    if 0 <= old <= 40 and data.draw(st.booleans()):
        roots = ROOTS[old], ROOTS[min(size, 40)]
    arguments = (old, size, proof, *roots)
    ours = refusal(lambda: merkle_proofs.verify_consistency(*arguments))
    assert refusal(lambda: verify.verify_consistency(*arguments)) == ours


def changes(content: bytes) -> Iterator[bytes]:
    """Yield the content with every byte changed in some ways, left out, doubled, and cut there."""
    for place in range(len(content)):
        for other in (content[place] ^ 1, content[place] ^ 0x20, 0x0A, 0x00, 0xFF):
            if other != content[place]:
                yield content[:place] + bytes([other]) + content[place + 1 :]
        yield content[:place] + content[place + 1 :]
        yield content[:place] + content[place : place + 1] + content[place:]
        yield content[:place]


def test_both_refuse_the_same_notes_and_read_the_others_alike() -> None:
    both = sign_checkpoint(CHECKPOINT, [signer(), signer(seed=2)])
    for changed in changes(both):
        assert refusal(lambda changed=changed: read_by_core(changed)) == refusal(
            lambda changed=changed: verify.parse_checkpoint(changed)
        )
        with suppress(RefusedError):
            found = verify.parse_checkpoint(changed)
            assert (found.origin, found.size, found.root) == read_by_core(changed)


def read_by_core(note: bytes) -> tuple[str, int, bytes]:
    found = parse_checkpoint(notes.parse_note(note).text)
    return found.origin, found.size, found.root


def test_both_refuse_the_same_inclusion_files() -> None:
    for changed in changes(bytes(PROOF)):
        ours = refusal(lambda changed=changed: parsed_by_core(changed))
        theirs = refusal(lambda changed=changed: verify.parse_inclusion(changed))
        # A hash of another length is refused by us when it is used.
        assert ours <= theirs


def parsed_by_core(content: bytes) -> None:
    found = tlog_proof.parse_tlog_proof(content)
    parse_checkpoint(notes.parse_note(found.checkpoint).text)


def test_no_changed_inclusion_file_verifies() -> None:
    """By the signature or by the hashes, whichever it hits."""
    key = verify.parse_vkey(str(signer().key))
    for changed in changes(bytes(PROOF)):
        assert refusal(lambda changed=changed: verify_inclusion_file(changed, key))
    verify_inclusion_file(bytes(PROOF), key)


def verify_inclusion_file(content: bytes, key: verify.Key) -> None:
    found = verify.parse_inclusion(content)
    checkpoint = found.checkpoint
    leaf = verify.leaf_hash(LEAVES[17])
    verify.verify_inclusion(leaf, found.index, checkpoint.size, found.path, checkpoint.root)
    verify.expect(checkpoint.is_signed_by(key), "expected the signature")


def test_no_changed_consistency_file_verifies() -> None:
    for changed in changes(CONSISTENCY):
        assert refusal(lambda changed=changed: verify_consistency_file(changed))
    verify_consistency_file(CONSISTENCY)


def verify_consistency_file(content: bytes) -> None:
    old_size, proof = verify.parse_consistency(content, verify.parse_checkpoint(NOTE))
    verify.expect(old_size == 23, "expected the size that is held")
    verify.verify_consistency(23, 40, proof, ROOTS[23], ROOTS[40])


def test_both_read_the_same_files_of_trusted_checkpoints() -> None:
    held = trusted_checkpoints.write_trusted(
        sign_checkpoint(Checkpoint(f"rmos/{each}", 40, ROOTS[40]), [signer()]) for each in "abc"
    )
    found = verify.parse_held(held)
    assert [each.note for each in found.values()] == [
        each.note for each in trusted_checkpoints.parse_trusted(held)
    ]
    for changed in changes(held):
        if not refusal(lambda changed=changed: trusted_checkpoints.parse_trusted(changed)):
            assert not refusal(lambda changed=changed: verify.parse_held(changed))


def test_a_key_changed_anywhere_is_refused() -> None:
    vkey = str(signer().key).encode()
    for changed in changes(vkey):
        with suppress(UnicodeDecodeError), pytest.raises(UnreadableError):
            verify.parse_vkey(changed.decode())


def test_every_golden_artifact_is_canonical_and_its_hashes_are_computed() -> None:
    wrong = []
    for name in ENTRIES:
        content = artifact_bytes(name)
        document = verify.parse_canonical(content, name)
        computed = verify.computed_hashes(document)
        if (document, computed) != (json.loads(content), document["hashes"]):
            wrong.append(name)
    assert wrong == []


@given(json_objects())
def test_both_write_the_same_canonical_json(value: dict[str, Any]) -> None:
    content = canonical_json(value)
    assert verify.canonical_json(value) == content
    assert verify.parse_canonical(content, "it") == value


NOT_CANONICAL = (
    b"",
    b"[]",
    b"1",
    b'{"a": 1}',
    b'{"a":1,"a":1}',
    b'{"a":NaN}',
    b'{"a":1e400}',
    b'{"a":Infinity}',
    b'{"b":1,"a":2}',
    b'{"a":1.00}',
    b'{"a":"\\u00e9"}',
    b'{"a":"\\ud800"}',
    b"\xef\xbb\xbf{}",
    b'{"a":1}\n',
    b"{" + b'"a":{' * 100_000,
    b"\xff",
)


def test_what_is_not_canonical_is_refused_by_both() -> None:
    taken = [content[:40] for content in NOT_CANONICAL if verifier_takes(content)]
    taken += [content[:40] for content in NOT_CANONICAL if program_takes(content)]
    assert taken == []


def verifier_takes(content: bytes) -> bool:
    try:
        verify.parse_canonical(content, "it")
    except RefusedError:
        return False
    return True


def program_takes(content: bytes) -> bool:
    try:
        return parse_object(content)[1] == content
    except InvalidJsonError:
        return False
