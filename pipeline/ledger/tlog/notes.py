"""Signed notes: a text and the Ed25519 signatures under it (C2SP signed-note).

One note may carry several signatures: of an old and a new key, or of others who vouch for it.
Base64 is standard, in the one form that each value has (RFC 4648 section 4).

The note of a change of key is signed by the old key and by the new one. Who trusts the old key may
trust the new one from the note alone, and who is given the new key learns which one signed before.
Its text names the store and both keys:

    rmos/<store_id> key rotation
    old <vkey>
    new <vkey>
"""

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from pipeline.ledger.tlog import EvidenceError


def encode_base64(data: bytes) -> str:
    """Return `data` in base64, padded."""
    return base64.b64encode(data).decode()


def decode_base64(text: str) -> bytes:
    """Return the bytes of `text`.

    Stricter than most readers, which pass over the unused bits of the last character: two
    texts for one value would let a note change without its signature noticing.

    Raises:
        EvidenceError: `text` is not what `encode_base64` makes.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise EvidenceError(f"expected base64, found {text[:80]!r}") from error
    if encode_base64(data) != text:
        raise EvidenceError(f"expected base64 in its one form, found {text[:80]!r}")
    return data


NOTE_LIMIT_BYTES: Final = 1_000_000
SIGNATURE_LIMIT: Final = 100
"""signed-note, "Format": at least 16 must be accepted. Go's sumdb/note takes 100."""

_ED25519: Final = b"\x01"
"""The type of the signature (signed-note, "Signature types")."""

_KEY_ID_BYTES: Final = 4
_PUBLIC_KEY_BYTES: Final = 32
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_KEY_ID = re.compile(r"[0-9a-f]{8}")


@dataclass(frozen=True)
class VerifierKey:
    """The public half of a key, with its name.

    Attributes:
        name: Of who signs.
        public_key: 32 bytes (RFC 8032 section 5.1.5).
    """

    name: str
    public_key: bytes

    def __post_init__(self) -> None:
        _check_name(self.name)
        if len(self.public_key) != _PUBLIC_KEY_BYTES:
            raise EvidenceError(f"expected a public key of 32 bytes, found {len(self.public_key)}")

    @cached_property
    def key_id(self) -> bytes:
        """Four bytes that distinguish keys of one name (signed-note, "Ed25519 signatures")."""
        hashed = sha256(self.name.encode() + b"\n" + _ED25519 + self.public_key).digest()
        return hashed[:_KEY_ID_BYTES]

    def __str__(self) -> str:
        """Return the vkey: `<name>+<key id in hex>+<base64 of type and public key>`."""
        return f"{self.name}+{self.key_id.hex()}+{encode_base64(_ED25519 + self.public_key)}"

    def verify(self, text: str, signature: bytes) -> None:
        """Check a signature under `text`.

        Raises:
            EvidenceError: This key did not make it.
        """
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature, text.encode())
        except InvalidSignature as error:
            raise EvidenceError(
                f"expected a signature of {self.name} that fits the text, found another"
            ) from error


def parse_vkey(text: str) -> VerifierKey:
    """Return the key that a vkey names.

    Raises:
        EvidenceError: It is no vkey of an Ed25519 key, or its id is not that of the key.
    """
    name, _, rest = text.partition("+")
    key_id, _, encoded = rest.partition("+")
    if not _KEY_ID.fullmatch(key_id):
        raise EvidenceError(f"expected a vkey <name>+<key id>+<key>, found {text[:200]!r}")
    data = decode_base64(encoded)
    if not data.startswith(_ED25519):
        raise EvidenceError("expected the vkey of an Ed25519 key")
    key = VerifierKey(name, data[1:])
    if key.key_id.hex() != key_id:
        raise EvidenceError(f"expected the key id {key.key_id.hex()} in the vkey, found {key_id}")
    return key


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line.

    Attributes:
        name: Of the key.
        key_id: Four bytes.
        signature: What the key made; 64 bytes for Ed25519.
    """

    name: str
    key_id: bytes
    signature: bytes

    def __str__(self) -> str:
        return f"— {self.name} {encode_base64(self.key_id + self.signature)}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A text, ending in a newline, and the signatures under it, none checked yet."""

    text: str
    signatures: tuple[NoteSignature, ...]

    def __bytes__(self) -> bytes:
        return f"{self.text}\n{''.join(map(str, self.signatures))}".encode()


@dataclass(frozen=True)
class NoteSigner:
    """A private key that signs notes under a name."""

    name: str
    private_key: Ed25519PrivateKey = field(repr=False)

    @cached_property
    def key(self) -> VerifierKey:
        """The public half."""
        return VerifierKey(self.name, self.private_key.public_key().public_bytes_raw())

    def sign(self, text: str) -> NoteSignature:
        """Sign `text`; the same text always gets the same signature (RFC 8032 section 5.1.6)."""
        signature = self.private_key.sign(text.encode())
        return NoteSignature(self.name, self.key.key_id, signature)


def sign_note(text: str, signers: Sequence[NoteSigner]) -> bytes:
    """Return the note over `text` with a signature of each signer, in their order.

    Raises:
        EvidenceError: No note can hold this text.
    """
    note = Note(text, tuple(signer.sign(text) for signer in signers))
    content = bytes(note)
    if parse_note(content) != note:
        raise EvidenceError("expected a text that ends in a newline")
    return content


def parse_note(content: bytes) -> Note:
    """Return the text and signatures of a note, none checked yet.

    Raises:
        EvidenceError: It is not of the form of signed-note, "Format".
    """
    if len(content) > NOTE_LIMIT_BYTES:
        raise EvidenceError(
            f"expected a note of at most {NOTE_LIMIT_BYTES:,} bytes, found {len(content):,}"
        )
    try:
        note = content.decode()
    except UnicodeDecodeError as error:
        raise EvidenceError(
            f"expected a note in UTF-8, found something else at byte {error.start}"
        ) from error
    if _CONTROL.search(note):
        raise EvidenceError("expected no control character but newline in a note")
    # The text may hold empty lines; the last one ends it.
    text, separator, lines = note.rpartition("\n\n")
    if not separator or not lines.endswith("\n"):
        raise EvidenceError("expected a text, an empty line and whole signature lines")
    signatures = tuple(map(_parse_signature, lines[:-1].split("\n")))
    if len(signatures) > SIGNATURE_LIMIT:
        raise EvidenceError(
            f"expected at most {SIGNATURE_LIMIT} signatures, found {len(signatures)}"
        )
    return Note(text + "\n", signatures)


def _parse_signature(line: str) -> NoteSignature:
    match line.split(" "):
        case ["—", name, encoded]:
            _check_name(name)
        case _:
            raise EvidenceError(f"expected a signature line, found {line[:200]!r}")
    data = decode_base64(encoded)
    if len(data) <= _KEY_ID_BYTES:
        raise EvidenceError(f"expected a key id and a signature of {name}, found {len(data)} bytes")
    return NoteSignature(name, data[:_KEY_ID_BYTES], data[_KEY_ID_BYTES:])


def _check_name(name: str) -> None:
    if not name or "+" in name or any(map(str.isspace, name)) or _CONTROL.search(name):
        raise EvidenceError(
            f"expected the name of a key, without spaces and `+`, found {name[:200]!r}"
        )


def verify_note(note: Note, keys: Iterable[VerifierKey]) -> list[VerifierKey]:
    """Return those of `keys` that signed the note: at least one.

    Signatures of other keys are passed over; one of a known key that does not fit condemns the
    whole note (signed-note, "Signatures").

    Raises:
        EvidenceError: None of `keys` signed it, or a signature does not fit.
    """
    known = list(dict.fromkeys(keys))
    signed = []
    for found in note.signatures:
        for key in known:
            if (key.name, key.key_id) == (found.name, found.key_id):
                key.verify(note.text, found.signature)
                signed.append(key)
    if not signed:
        names = ", ".join(str(key) for key in known) or "no key"
        raise EvidenceError(f"expected a signature of {names}, found none")
    return signed


_TITLE: Final = " key rotation"
_LINES: Final = 4


@dataclass(frozen=True, slots=True)
class KeyRotation:
    """One change of key; both have the same name."""

    old: VerifierKey
    new: VerifierKey

    def __post_init__(self) -> None:
        if self.old.name != self.new.name or self.old == self.new:
            raise EvidenceError(f"expected two keys of one name, found {self.old} and {self.new}")

    @property
    def text(self) -> str:
        """The text of the note."""
        return f"{self.old.name}{_TITLE}\nold {self.old}\nnew {self.new}\n"


def sign_rotation(old: NoteSigner, new: NoteSigner) -> bytes:
    """Return the note, signed by both; the same for the same keys.

    Raises:
        EvidenceError: They are not two keys of one name.
    """
    return sign_note(KeyRotation(old.key, new.key).text, [old, new])


def open_rotation(content: bytes) -> KeyRotation:
    """Return the change of key that both keys have signed.

    Raises:
        EvidenceError: It is malformed, or one of both did not sign it.
    """
    note = parse_note(content)
    rotation = _parse(note.text)
    # The text itself names the keys; what counts is that the caller knows one of them.
    if len(set(verify_note(note, [rotation.old, rotation.new]))) != 2:  # noqa: PLR2004
        raise EvidenceError("expected a signature of the old key and one of the new key")
    return rotation


def _parse(text: str) -> KeyRotation:
    lines = text.split("\n")
    if len(lines) == _LINES and lines[1].startswith("old ") and lines[2].startswith("new "):
        rotation = KeyRotation(parse_vkey(lines[1][4:]), parse_vkey(lines[2][4:]))
        if rotation.text == text:
            return rotation
    raise EvidenceError(f"expected the text of a key rotation, found {text[:200]!r}")
