"""Checkpoints: the form of C2SP tlog-checkpoint and nothing else, signed by a known key."""

import pytest

from pipeline.ledger.tlog import EvidenceError
from pipeline.ledger.tlog.checkpoints import (
    Checkpoint,
    empty_checkpoint,
    open_checkpoint,
    parse_checkpoint,
    sign_checkpoint,
)
from pipeline.ledger.tlog.merkle import EMPTY_ROOT
from pipeline.ledger.tlog.notes import parse_note, sign_note
from tests.laws import offenders
from tests.ledger.tlog.signers import signer

# The example of C2SP tlog-checkpoint. Its key is not published.
C2SP_CHECKPOINT = """\
example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa \
Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
"""
ROOT_TEXT = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I="
CHECKPOINT = Checkpoint("rmos/0/1/rmos.runs.requests/3", 12, bytes(range(32)))


def test_the_example_of_c2sp_is_a_checkpoint() -> None:
    note = parse_note(C2SP_CHECKPOINT.encode())
    checkpoint = parse_checkpoint(note.text)
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20_852_163)
    assert checkpoint.root.hex().startswith("0ac5186a91863e8e")
    assert checkpoint.text == note.text


def test_a_checkpoint_is_signed_and_opened() -> None:
    content = sign_checkpoint(CHECKPOINT, [signer()])
    assert open_checkpoint(content, [signer().key]) == CHECKPOINT
    assert open_checkpoint(content, [signer().key], origin=CHECKPOINT.origin) == CHECKPOINT


def test_the_same_checkpoint_is_signed_with_the_same_bytes() -> None:
    assert sign_checkpoint(CHECKPOINT, [signer()]) == sign_checkpoint(CHECKPOINT, [signer()])


def test_a_log_without_leaves_has_size_zero_and_the_root_of_nothing() -> None:
    checkpoint = empty_checkpoint("rmos/0")
    assert checkpoint.root == EMPTY_ROOT
    assert parse_checkpoint(checkpoint.text) == checkpoint
    assert checkpoint.text.splitlines()[1] == "0"


def test_a_checkpoint_of_another_log_is_refused() -> None:
    content = sign_checkpoint(CHECKPOINT, [signer()])
    with pytest.raises(EvidenceError, match="expected a checkpoint of rmos/1, found one of rmos/0"):
        open_checkpoint(content, [signer().key], origin="rmos/1")


def test_a_checkpoint_of_another_key_is_refused() -> None:
    content = sign_checkpoint(CHECKPOINT, [signer(seed=2)])
    with pytest.raises(EvidenceError, match="expected a signature of"):
        open_checkpoint(content, [signer().key])


def test_another_text_is_refused_although_it_is_signed() -> None:
    def holds(text: str) -> None:
        with pytest.raises(EvidenceError):
            open_checkpoint(sign_note(text, [signer()]), [signer().key])

    assert (
        offenders(
            holds,
            [
                "",
                "\n",
                f"rmos/0\n1\n{ROOT_TEXT}",
                f"rmos/0\n1\n{ROOT_TEXT}\n\n",
                f"rmos/0\n1\n{ROOT_TEXT}\nextension\n",
                f"\n1\n{ROOT_TEXT}\n",
                f"rmos/0\n01\n{ROOT_TEXT}\n",
                f"rmos/0\n+1\n{ROOT_TEXT}\n",
                f"rmos/0\n-1\n{ROOT_TEXT}\n",
                f"rmos/0\n1 \n{ROOT_TEXT}\n",
                f"rmos/0\n1_0\n{ROOT_TEXT}\n",
                f"rmos/0\n\u0661\n{ROOT_TEXT}\n",
                f"rmos/0\n\n{ROOT_TEXT}\n",
                f"rmos/0\n{'9' * 20}\n{ROOT_TEXT}\n",
                f"rmos/0\n1\n{ROOT_TEXT[:-1]}\n",
                f"rmos/0\n1\n{ROOT_TEXT[4:]}\n",
                f"rmos/0\n1\nAAAA{ROOT_TEXT}\n",
                f"rmos/0\n1\n{ROOT_TEXT.replace('2I=', '2J=')}\n",
                f"rmos/0\n1\n{ROOT_TEXT.replace('/', '_')}\n",
                "rmos/0\n1\n\n",
                "rmos/0\n1\n",
            ],
        )
        == []
    )
