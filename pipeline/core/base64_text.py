"""Standard base64, in the one form that each value has (RFC 4648 section 4)."""

import base64
import binascii

from pipeline.ledger.tlog.errors import EvidenceError


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
        message = f"expected base64, found {text[:80]!r}"
        raise EvidenceError(message) from error
    if encode_base64(data) != text:
        message = f"expected base64 in its one form, found {text[:80]!r}"
        raise EvidenceError(message)
    return data
