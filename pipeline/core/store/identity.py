"""The identity of a store: its id, its epoch and its Kafka cluster."""

import json
import re
from dataclasses import dataclass
from typing import Any, Final

from pipeline.core.store.files import NotAFileError, ReadableFiles
from pipeline.errors import StoreNotReadyError

STORE_FILE: Final = "store.json"
STORE_FORMAT: Final = "rmos.store/1"
_LIMIT_BYTES: Final = 100_000
_STORE_ID: Final = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class StoreIdentity:
    """What `store.json` holds.

    Attributes:
        format: `rmos.store/1`.
        store_id: 32 random hex digits, for the life of the store.
        cluster_id: The Kafka cluster whose topics it keeps.
        prefix: First part of the topics' names.
        epoch: Whole number from 1; one more for each new broker.
    """

    format: str
    store_id: str
    cluster_id: str
    prefix: str
    epoch: int


def is_store_id(text: str) -> bool:
    """Return whether a text has the form of a store's id."""
    return _STORE_ID.fullmatch(text) is not None


def read_identity(files: ReadableFiles) -> StoreIdentity:
    """Return the identity that is among the files of a store.

    Raises:
        StoreNotReadyError: There is no store, or one of another format.
    """
    path = f"{files.name}/{STORE_FILE}"
    with files.faults():
        try:
            text = files.read(STORE_FILE, _LIMIT_BYTES)
        except NotAFileError as error:
            raise StoreNotReadyError(
                f"Expected {path} to hold the store's identity, found {error}."
            ) from error
        except (FileNotFoundError, NotADirectoryError):
            way = "look at RMOS_STORE_URL" if "://" in files.name else "mount its volume"
            raise StoreNotReadyError(
                f"There is no store at {files.name}: {way}, or make a new store with "
                "rmos store init."
            ) from None
    return _parse_identity(files.name, path, text)


def _parse_identity(name: str, path: str, text: bytes) -> StoreIdentity:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise StoreNotReadyError(
            f"Expected {path} to hold the store's identity, found {error}."
        ) from error
    # The format first: that of another version has other fields.
    if isinstance(found, dict) and found.get("format", STORE_FORMAT) != STORE_FORMAT:
        raise StoreNotReadyError(
            f"Expected a store of format {STORE_FORMAT} at {name}, found "
            f"{found['format']}: use the version of this program that made it."
        )
    if not _is_identity(found):
        raise StoreNotReadyError(
            f"Expected {path} to hold the store's identity, found something else."
        )
    return StoreIdentity(**found)


def _is_identity(found: Any) -> bool:  # noqa: ANN401
    return (
        isinstance(found, dict)
        and found.keys() == StoreIdentity.__annotations__.keys()
        and all(isinstance(found[name], str) for name in ("store_id", "cluster_id", "prefix"))
        and is_store_id(found["store_id"])
        and type(found["epoch"]) is int
        and found["epoch"] >= 1
    )
