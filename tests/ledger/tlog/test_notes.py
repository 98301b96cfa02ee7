"""Signed notes: the published vectors, and every malformed one refused."""

import base64
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from pipeline.ledger.tlog import EvidenceError
from pipeline.ledger.tlog.notes import (
    NOTE_LIMIT_BYTES,
    Note,
    NoteSignature,
    NoteSigner,
    VerifierKey,
    parse_note,
    parse_vkey,
    sign_note,
    verify_note,
)
from tests.laws import offenders
from tests.ledger.tlog.signers import signer

# The example of C2SP signed-note. Its key is not published.
C2SP_NOTE = """\
Ognuno sta solo sul cuor della terra
trafitto da un raggio di sole:

ed è subito sera.

— quasimodo.example/salvatore \
NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=
"""

# The example of Go's golang.org/x/mod/sumdb/note (note_test.go), with both keys.
GO_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_SEED = base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
GO_TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
GO_NOTE = f"""{GO_TEXT}
— PeterNeumann \
x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=
"""
PETER = NoteSigner("PeterNeumann", Ed25519PrivateKey.from_private_bytes(GO_SEED))


def test_the_example_of_c2sp_is_a_note() -> None:
    note = parse_note(C2SP_NOTE.encode())
    assert note.text.endswith("sole:\n\ned è subito sera.\n")
    (signature,) = note.signatures
    assert signature.name == "quasimodo.example/salvatore"
    assert (signature.key_id.hex(), len(signature.signature)) == ("367ba04b", 64)
    assert bytes(note) == C2SP_NOTE.encode()


def test_the_example_of_go_verifies_and_is_made_byte_for_byte() -> None:
    key = parse_vkey(GO_VKEY)
    assert str(key) == GO_VKEY
    assert verify_note(parse_note(GO_NOTE.encode()), [key]) == [key]
    assert PETER.key == key
    assert sign_note(GO_TEXT, [PETER]) == GO_NOTE.encode()


def test_the_key_id_is_the_hash_of_name_type_and_key() -> None:
    key = signer().key
    assert key.key_id == sha256(b"rmos/test\n\x01" + key.public_key).digest()[:4]


def test_every_changed_vkey_is_refused() -> None:
    for start in range(len(GO_VKEY)):
        for end in range(start + 1, len(GO_VKEY) + 1):
            if (start, end) != (0, len(GO_VKEY)):
                with pytest.raises(EvidenceError):
                    parse_vkey(GO_VKEY[start:end])
    for place in range(len(GO_VKEY)):
        changed = GO_VKEY[:place] + chr(ord(GO_VKEY[place]) + 1) + GO_VKEY[place + 1 :]
        with pytest.raises(EvidenceError):
            parse_vkey(changed)


@pytest.mark.parametrize(
    "vkey",
    [
        # From Go's tests: a key of another length, an unknown type; both with their own ids.
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        GO_VKEY.replace("c74f20a3", "C74F20A3"),
        f"{GO_VKEY}\n",
        "",
        "++",
    ],
)
def test_another_vkey_is_refused(vkey: str) -> None:
    with pytest.raises(EvidenceError):
        parse_vkey(vkey)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u2003b", "a\u0085b", "a\nb", "a\x1fb"])
def test_a_name_that_no_key_may_have_is_refused(name: str) -> None:
    with pytest.raises(EvidenceError, match="name of a key"):
        VerifierKey(name, b"\x00" * 32)


def test_a_note_changed_anywhere_is_refused() -> None:
    """Each bit of each byte: the text, the lines between, names, ids and signatures."""
    note = sign_note("origin\n12\nroot\n", [signer()])
    for place in range(len(note)):
        for bit in range(8):
            changed = bytearray(note)
            changed[place] ^= 1 << bit
            with pytest.raises(EvidenceError):
                verify_note(parse_note(bytes(changed)), [signer().key])


def test_a_note_with_a_byte_less_or_more_is_refused() -> None:
    note = sign_note("origin\n12\nroot\n", [signer()])
    for place in range(len(note)):
        for changed in (
            note[:place],
            note[:place] + note[place + 1 :],
            note[:place] + b"\n" + note[place:],
            note[:place] + b"A" + note[place:],
        ):
            if changed != note:
                with pytest.raises(EvidenceError):
                    verify_note(parse_note(changed), [signer().key])


SIGNATURE = GO_NOTE.splitlines()[-1]
EM_SPACE_NAME = "Peter\u2003Neumann"


def test_a_malformed_note_is_refused() -> None:
    def holds(note: str) -> None:
        with pytest.raises(EvidenceError):
            parse_note(note.encode())

    assert (
        offenders(
            holds,
            [
                "",
                "\n",
                "text",
                "text\n",
                "text\n\n",
                "text\n\n\n",
                f"text\n{SIGNATURE}\n",
                f"text\n\n{SIGNATURE}",
                f"text\n\n{SIGNATURE}\n\n",
                f"text\n\n{SIGNATURE}\nmore\n",
                f"text\n\n{SIGNATURE} \n",
                f"text\n\n {SIGNATURE}\n",
                f"text\n\n{SIGNATURE.replace('—', '-')}\n",
                f"text\n\n{SIGNATURE.replace('— ', '—  ')}\n",
                f"text\n\n{SIGNATURE.replace('— ', '—')}\n",
                f"text\n\n{SIGNATURE.replace('PeterNeumann', 'Peter+Neumann')}\n",
                f"text\n\n{SIGNATURE.replace('PeterNeumann', EM_SPACE_NAME)}\n",
                f"text\n\n{SIGNATURE.replace('PeterNeumann ', ' ')}\n",
                f"text\n\n{SIGNATURE[:-1]}\n",  # base64 without its padding
                f"text\n\n{SIGNATURE[:-2]}N=\n".replace("AM=", "AN="),  # unused bits that are set
                "text\n\n— PeterNeumann x08gow==\n",  # a key id alone
                "text\n\n— PeterNeumann \n",
                f"te\txt\n\n{SIGNATURE}\n",
                f"te\rxt\n\n{SIGNATURE}\n",
                f"te\x00xt\n\n{SIGNATURE}\n",
                "text\n\n" + f"{SIGNATURE}\n" * 101,
            ],
        )
        == []
    )


def test_a_note_that_is_not_utf8_or_endless_is_refused() -> None:
    with pytest.raises(EvidenceError, match="expected a note in UTF-8"):
        parse_note(b"\xff" + GO_NOTE.encode())
    with pytest.raises(EvidenceError, match="at most 1,000,000 bytes"):
        parse_note(b"a" * NOTE_LIMIT_BYTES + GO_NOTE.encode())


def test_at_least_sixteen_signatures_are_taken() -> None:
    signers = [signer(seed=seed) for seed in range(1, 17)]
    note = parse_note(sign_note("text\n", signers))
    assert verify_note(note, [signers[-1].key]) == [signers[-1].key]


def test_old_and_new_key_sign_one_note() -> None:
    old, new = signer(seed=1), signer(seed=2)
    note = parse_note(sign_note("text\n", [old, new]))
    assert verify_note(note, [old.key]) == [old.key]
    assert verify_note(note, [new.key]) == [new.key]
    assert verify_note(note, [new.key, old.key]) == [old.key, new.key]


def test_a_signature_of_a_known_key_that_does_not_fit_condemns_the_note() -> None:
    old, new = signer(seed=1), signer(seed=2)
    good, other = old.sign("text\n"), new.sign("other\n")
    note = Note("text\n", (good, other))
    assert verify_note(note, [old.key]) == [old.key]
    with pytest.raises(EvidenceError, match="that fits the text"):
        verify_note(note, [old.key, new.key])
    # Also where the same key has signed once well and once not.
    with pytest.raises(EvidenceError, match="that fits the text"):
        verify_note(Note("text\n", (good, old.sign("other\n"))), [old.key])


@pytest.mark.parametrize("length", [0, 63, 65])
def test_a_signature_of_another_length_is_refused(length: int) -> None:
    key = signer().key
    signature = NoteSignature(key.name, key.key_id, b"\x00" * length)
    with pytest.raises(EvidenceError, match="that fits the text"):
        verify_note(Note("text\n", (signature,)), [key])


def test_a_key_with_the_same_name_or_the_same_id_alone_is_unknown() -> None:
    known = signer().key
    made = signer().sign("text\n")
    for name, key_id in ((made.name, b"\x00" * 4), ("rmos/other", made.key_id)):
        note = Note("text\n", (NoteSignature(name, key_id, made.signature),))
        with pytest.raises(EvidenceError, match=r"expected a signature of .*, found none"):
            verify_note(note, [known])
    with pytest.raises(EvidenceError, match="expected a signature of no key"):
        verify_note(Note("text\n", (made,)), [])


@pytest.mark.parametrize("text", ["text", "", "te\x01xt\n", "te\rxt\n"])
def test_a_text_that_no_note_can_hold_is_not_signed(text: str) -> None:
    with pytest.raises(EvidenceError):
        sign_note(text, [signer()])


@given(st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cc", "Cs"])))
def test_any_text_is_signed_and_read_back(line: str) -> None:
    text = f"{line}\n\n{line}\n"
    note = parse_note(sign_note(text, [signer()]))
    assert note.text == text
    verify_note(note, [signer().key])


def test_a_private_key_is_never_shown() -> None:
    assert "private" not in repr(signer()).lower()
