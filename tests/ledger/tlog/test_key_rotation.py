"""A change of key counts where both keys have signed it, and says which keys they are."""

import pytest

from pipeline.ledger.tlog import EvidenceError
from pipeline.ledger.tlog.notes import KeyRotation, open_rotation, sign_note, sign_rotation
from tests.ledger.tlog.signers import signer

OLD, NEW = signer(seed=1), signer(seed=2)


def test_the_note_of_a_change_names_both_keys_and_is_signed_by_both() -> None:
    note = sign_rotation(OLD, NEW)
    assert note.decode().split("\n")[:3] == [
        "rmos/test key rotation",
        f"old {OLD.key}",
        f"new {NEW.key}",
    ]
    assert open_rotation(note) == KeyRotation(OLD.key, NEW.key)
    assert sign_rotation(OLD, NEW) == note


@pytest.mark.parametrize("signers", [[OLD], [NEW], [OLD, OLD], [signer(seed=3)]])
def test_one_signature_is_not_enough(signers: list) -> None:  # type: ignore[type-arg]
    with pytest.raises(EvidenceError, match="expected a signature of"):
        open_rotation(sign_note(KeyRotation(OLD.key, NEW.key).text, signers))


def test_any_changed_byte_is_refused() -> None:
    note = sign_rotation(OLD, NEW)
    for place in range(len(note)):
        changed = bytearray(note)
        changed[place] ^= 1
        with pytest.raises(EvidenceError):
            open_rotation(bytes(changed))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "rmos/test key rotation\n",
        f"rmos/other key rotation\nold {OLD.key}\nnew {NEW.key}\n",
        f"rmos/test key rotation\nold {OLD.key}\nnew {NEW.key}\nmore\n",
        f"rmos/test key rotation\nnew {OLD.key}\nold {NEW.key}\n",
        f"rmos/test key rotation\nold {OLD.key}\nnew {OLD.key}\n",
    ],
)
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises(EvidenceError):
        open_rotation(sign_note(text + "\n" * (not text), [OLD, NEW]))


def test_keys_of_two_names_are_refused() -> None:
    with pytest.raises(EvidenceError, match="two keys of one name"):
        sign_rotation(OLD, signer("rmos/other", seed=2))
    with pytest.raises(EvidenceError, match="two keys of one name"):
        sign_rotation(OLD, OLD)
