"""SHA-256 of bytes, texts and JSON values, as lower-case hex (FIPS 180-4)."""

import hashlib
from typing import Any

from pipeline.core.json.canonical import canonical_json


def sha256_of_bytes(data: bytes) -> str:
    """Return the SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_text(text: str) -> str:
    """Return the SHA-256 of the UTF-8 bytes of `text`."""
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_of_json(value: Any) -> str:  # noqa: ANN401
    """Return the SHA-256 of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value)).hexdigest()
