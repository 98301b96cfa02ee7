"""What people may see of a refused record's value, and in which form.

Nobody judged a refused record, so its bytes are no run. But the same program may have come again
and been blocked, or a later request may be in conflict with a run that is: what a verdict keeps
from the machines must not be read off a dead letter. So the page shows a value only where its code
says that no run, advisory or verdict came of it, and where the store, asked for each run_id and for
the SHA-256 of each part, knows of no verdict that withholds it.
"""

import base64
import binascii
import json
import re
from collections.abc import Iterator
from typing import Any, Final

from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.json.canonical import canonical_json
from pipeline.core.json.strict import InvalidJsonError, parse_object
from schemas.fields import is_run_id

SHOWN_CODES: Final = frozenset(
    {
        *("TOMBSTONE", "TOO_LARGE", "INVALID_JSON", "INVALID_IDENTITY", "KEY_MISMATCH"),
        *("UNSUPPORTED_VERSION", "INVALID_ADVISORY", "INVALID_AUDIT"),
    }
)
"""Of records that were refused before any verdict. Not among them: conflicts, whose run may be
blocked; a damaged artifact; a failure of our program, after which nothing is known; rows of an
older store, which may be of blocked runs; advisories that wait; and codes that we do not know."""

MOST_PARTS: Final = 2_000
"""Of a value with more of them nothing is shown: each is looked up."""

_SHORTEST: Final = 8
"""No program is shorter, in characters of its text or of its base64."""

_DEEPEST: Final = 4
"""Nothing that a run withholds lies deeper: `outputs.opplan_json` is at 2."""

_RUN_ID = re.compile(rb'"run_id"\s*:\s*"([^"\\]{1,200})"')
_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_WIDTH: Final = 16


def named_run_ids(key: bytes | None, value: bytes | None) -> set[str]:
    """Return the run_ids that a record may be about, also where it is no JSON."""
    texts = [key or b"", *_RUN_ID.findall(value or b"")]
    if (document := _document(value)) is not None and isinstance(document.get("run_id"), str):
        texts.append(document["run_id"].encode(errors="replace"))
    return {text for text in (each.decode(errors="replace") for each in texts) if is_run_id(text)}


def part_hashes(value: bytes) -> set[str] | None:
    """Return the SHA-256 of each part of a value that may be withheld; None of too many.

    The parts are the value itself; each text in it, also where it is no whole JSON; what such a
    text is the base64 of; and of JSON each object and list in its canonical form, four levels deep.
    """
    found = {sha256_of_bytes(value)}
    document = _document(value)
    for part in _texts(value) if document is None else _parts(document, 0):
        if len(found) >= MOST_PARTS:
            return None
        found.add(sha256_of_bytes(part))
    return found


def _parts(value: Any, depth: int) -> Iterator[bytes]:  # noqa: ANN401  # any JSON
    if isinstance(value, str):
        if len(value) >= _SHORTEST:
            yield value.encode(errors="surrogatepass")
            decoded = _of_base64(value)
            if decoded is not None:
                yield decoded
    elif isinstance(value, dict | list):
        if depth <= _DEEPEST:
            yield canonical_json(value)
        for each in value.values() if isinstance(value, dict) else value:
            yield from _parts(each, depth + 1)


def _of_base64(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def _texts(value: bytes) -> Iterator[bytes]:
    """Yield the parts of each text of JSON in a value that is none as a whole."""
    for found in _TEXT.finditer(value):
        try:
            text = json.loads(found[0], strict=False)
        except ValueError:
            continue
        yield from _parts(text, 0)


def _document(value: bytes | None) -> dict[str, Any] | None:
    try:
        return parse_object(value or b"")[0]
    except InvalidJsonError:
        return None


def readable_body(value: bytes) -> str | None:
    """Return JSON indented and other text as it is; None for what is no text."""
    try:
        document, _ = parse_object(value)
        return json.dumps(document, ensure_ascii=False, indent=2)
    except InvalidJsonError:
        pass
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return None
    # A zero byte is what no text of a producer has, and what most other data have.
    return None if "\x00" in text else text


def hexdump(data: bytes) -> Iterator[str]:
    """Yield lines of 16 bytes: the place, the bytes, and those that are printable ASCII."""
    for start in range(0, len(data), _WIDTH):
        row = data[start : start + _WIDTH]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)  # noqa: PLR2004
        yield f"{start:08x}  {row.hex(' '):<{3 * _WIDTH}} |{text}|"
