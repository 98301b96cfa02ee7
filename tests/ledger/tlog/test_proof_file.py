"""Offline proofs: in the form of C2SP tlog-proof, and refused with anything changed."""

from dataclasses import replace

import pytest

from pipeline.ledger.tlog import EvidenceError
from pipeline.ledger.tlog.checkpoints import Checkpoint, sign_checkpoint
from pipeline.ledger.tlog.proofs import TlogProof, parse_tlog_proof, prove_inclusion
from tests.ledger.tlog.signers import signer
from tests.ledger.tlog.trees import reader_of, root_by_definition

LEAVES = [b"leaf %d" % number for number in range(11)]
CHECKPOINT = Checkpoint("rmos/0", len(LEAVES), root_by_definition(LEAVES))
NOTE = sign_checkpoint(CHECKPOINT, [signer()])


def proof_of(index: int) -> TlogProof:
    path = prove_inclusion(index, len(LEAVES), reader_of(LEAVES))
    return TlogProof(index, tuple(path), NOTE)


def test_every_leaf_has_a_proof_that_is_written_and_read_back() -> None:
    for index, leaf in enumerate(LEAVES):
        proof = parse_tlog_proof(bytes(proof_of(index)))
        assert proof == proof_of(index)
        assert proof.verify(leaf, [signer().key], origin="rmos/0") == CHECKPOINT


def test_the_form_is_header_index_hashes_and_checkpoint() -> None:
    header, index, *hashes = bytes(proof_of(9)).decode().split("\n\n")[0].split("\n")
    assert (header, index, len(hashes)) == ("c2sp.org/tlog-proof@v1", "index 9", 3)
    assert bytes(proof_of(9)).endswith(b"\n\n" + NOTE)


def test_a_proof_changed_anywhere_is_refused() -> None:
    content = bytes(proof_of(5))
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1
        with pytest.raises(EvidenceError):
            parse_tlog_proof(bytes(changed)).verify(LEAVES[5], [signer().key])


def test_a_proof_of_something_else_is_refused() -> None:
    proof = proof_of(5)
    for leaf, keys, origin in (
        (LEAVES[4], [signer().key], None),
        (LEAVES[5], [signer(seed=2).key], None),
        (LEAVES[5], [], None),
        (LEAVES[5], [signer().key], "rmos/1"),
    ):
        with pytest.raises(EvidenceError):
            proof.verify(leaf, keys, origin=origin)
    for index in (4, 6, 11):
        with pytest.raises(EvidenceError):
            replace(proof, index=index).verify(LEAVES[5], [signer().key])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"c2sp.org/tlog-proof@v1\nindex 0\n",
        b"c2sp.org/tlog-proof@v1\n\n" + NOTE,
        b"c2sp.org/tlog-proof@v2\nindex 0\n\n" + NOTE,
        b"c2sp.org/tlog-proof@v1\nindex 00\n\n" + NOTE,
        b"c2sp.org/tlog-proof@v1\nindex -1\n\n" + NOTE,
        b"c2sp.org/tlog-proof@v1\nextra AAAA\nindex 0\n\n" + NOTE,
        b"c2sp.org/tlog-proof@v1\nindex 0\nnot base64\n\n" + NOTE,
        b"c2sp.org/tlog-proof@v1\nindex 0\n\xff\n\n" + NOTE,
    ],
)
def test_another_form_is_refused(content: bytes) -> None:
    with pytest.raises(EvidenceError):
        parse_tlog_proof(content)
