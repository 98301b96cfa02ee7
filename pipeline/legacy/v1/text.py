"""The text of a v1 store: one JSON object with a row for each run_id, read and written as v1 did.

v1 wrote `json.dump(runs, indent=2, sort_keys=True)`: UTF-8, everything else than ASCII escaped, no
line break at the end. A row is kept as the text it has, so rewriting the file changes no other row.

What makes the file unreadable is refused as a whole. So is a run_id that is there twice, which v1
never wrote: which of the two is the run cannot be decided. What is wrong inside one row, such as
NaN, which v1 did write, is an error when that row is read, and concerns no other.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.json.strict import InvalidJsonError, parse_object
from pipeline.disk.regular_files import open_named
from pipeline.errors import InputError, input_faults

_SPACE = re.compile(r"[ \t\n\r]*+")
# Looks for the end of each value; the values themselves are parsed when they are asked for.
_scan = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str).raw_decode


@dataclass(frozen=True, slots=True)
class V1Row:
    """One row as the file has it.

    Attributes:
        run_id: Its key, whatever it is.
        line: The line of the file where its key is, from 1.
        text: Its value, exactly as it is written.
    """

    run_id: str
    line: int
    text: str

    def value(self) -> dict[str, Any]:
        """Return the row, no field of it looked at.

        Integers keep every digit. Other numbers are doubles, as they were where v1 wrote them.

        Raises:
            InvalidJsonError: It is no object, or not strict JSON: a key twice in one object, NaN,
                a lone surrogate, more than 64 levels.
        """
        try:
            return parse_row(self.text)
        except InvalidJsonError as error:
            raise InvalidJsonError(f"{error}, in the row at line {self.line}") from error


def parse_row(text: str) -> dict[str, Any]:
    """Return the row with this text, no field of it looked at.

    Raises:
        InvalidJsonError: As `V1Row.value`.
    """
    return parse_object(text.encode())[0]


def parse_rows(body: bytes) -> list[V1Row]:
    """Return the rows of the file with these bytes, in its order.

    Raises:
        InvalidJsonError: They are not one JSON object with each key once; the text names line and
            byte.
    """
    text = _decode(body)
    rows: list[V1Row] = []
    lines: dict[str, int] = {}
    line, counted = 1, 0
    at = _after(text, _skip_space(text, 0), "{")
    more = text[at : at + 1] != "}"
    while more:
        line += text.count("\n", counted, at)
        counted = at
        run_id, end = _scan_at(text, at)
        if text[at] != '"':
            _refuse(text, at, "a run_id")
        if run_id in lines:
            _refuse(text, at, "each run_id once", f"that of line {lines[run_id]} again")
        lines[run_id] = line
        start = _after(text, _skip_space(text, end), ":")
        _, end = _scan_at(text, start)
        rows.append(V1Row(run_id, line, text[start:end]))
        at = _skip_space(text, end)
        more = text[at : at + 1] == ","
        if more:
            at = _after(text, at, ",")
    at = _after(text, at, "}")
    if at != len(text):
        _refuse(text, at, "the end of the file")
    return rows


def _decode(body: bytes) -> str:
    if not body:
        raise InvalidJsonError("expected a JSON object, found an empty file")
    if body.startswith(b"\xef\xbb\xbf"):
        raise InvalidJsonError("expected no byte order mark")
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        raise InvalidJsonError(
            f"expected UTF-8, found something else at line {line}, byte {error.start}"
        ) from error


def _skip_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None
    return match.end()


def _after(text: str, at: int, expected: str) -> int:
    """Return where the text goes on after a sign that must be at `at`."""
    if text[at : at + 1] != expected:
        _refuse(text, at, f"{expected!r}")
    return _skip_space(text, at + 1)


def _scan_at(text: str, at: int) -> tuple[Any, int]:
    try:
        return _scan(text, at)
    except json.JSONDecodeError as error:
        _refuse(text, error.pos, f"JSON ({error.msg})")
    except RecursionError:
        _refuse(text, at, "a value of fewer levels")


def _refuse(text: str, at: int, expected: str, found: str = "something else") -> NoReturn:
    if at >= len(text):
        found = "the end of the file"
    line, byte = text.count("\n", 0, at) + 1, len(text[:at].encode())
    raise InvalidJsonError(f"expected {expected}, found {found} at line {line}, byte {byte}")


def format_row(value: Mapping[str, Any]) -> str:
    """Return the text of a row as v1 wrote it, where it stands in the file."""
    text = json.dumps(value, indent=2, sort_keys=True)
    # Inside strings line breaks are escaped, so each of these begins a line of the row.
    return text.replace("\n", "\n  ")


def format_rows(texts: Mapping[str, str]) -> bytes:
    """Return the bytes of a file with these rows, each a run_id and the text of its row."""
    if not texts:
        return b"{}"
    members = (f"  {json.dumps(run_id)}: {text}" for run_id, text in sorted(texts.items()))
    return ("{\n" + ",\n".join(members) + "\n}").encode()


def read_rows(path: Path) -> tuple[list[V1Row], str]:
    """Return the rows of the v1 store at `path`, and the SHA-256 of its bytes.

    What is wrong inside one row is an error of that row alone.

    Raises:
        InputError: There is none, or it is not one JSON object with each run_id once.
    """
    with input_faults(f"The v1 store {path} cannot be read"), open_named(path) as file:
        body = file.read()
    try:
        return parse_rows(body), sha256_of_bytes(body)
    except InvalidJsonError as error:
        raise InputError(f"The v1 store {path} cannot be read: {error}.") from error
