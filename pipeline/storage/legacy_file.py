"""Reading the file of a v1 store, which the program of that time or a copy of it has left."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.json.strict import InvalidJsonError
from pipeline.disk.regular_files import open_named
from pipeline.errors import InputError
from pipeline.legacy.rows import LegacyRow, parse_rows


@dataclass(frozen=True, slots=True)
class LegacyRows:
    """What a v1 store held when it was read.

    Attributes:
        sha256: Of the file's bytes.
        size_bytes: How many they are.
        rows: In the order of the file.
    """

    sha256: str
    size_bytes: int
    rows: Sequence[LegacyRow]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[LegacyRow]:
        return iter(self.rows)


def read_rows(path: Path) -> LegacyRows:
    """Read the v1 store at `path`; what is wrong inside one row is told by that row.

    Raises:
        InputError: There is none, or it is not one JSON object with each run_id once.
    """
    try:
        with open_named(path) as file:
            body = file.read()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        message = f"The v1 store {path} cannot be read: {reason}."
        raise InputError(message) from error
    try:
        rows = parse_rows(body)
    except InvalidJsonError as error:
        message = f"The v1 store {path} cannot be read: {error}."
        raise InputError(message) from error
    return LegacyRows(hashlib.sha256(body).hexdigest(), len(body), rows)
