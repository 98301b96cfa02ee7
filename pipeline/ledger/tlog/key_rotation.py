"""The note of a change of key: the old key vouches for the new one, and the new one signs too.

Whoever trusts the old key may trust the new one from the note alone, and whoever is handed the
new key learns which one signed before. Its text names the store and both keys:

    rmos/<store_id> key rotation
    old <vkey>
    new <vkey>
"""

from dataclasses import dataclass
from typing import Final

from pipeline.ledger.tlog.errors import EvidenceError
from pipeline.ledger.tlog.notes import (
    NoteSigner,
    VerifierKey,
    parse_note,
    parse_vkey,
    sign_note,
    verify_note,
)

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
    # Which keys to ask the text says itself; what counts is that the caller knows one of them.
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
