"""The identity of a store: its id, its epoch and its Kafka cluster."""

import json
import re
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from pipeline.core.store.files import NotAFileError, ReadableFiles
from pipeline.errors import StoreNotReadyError

STORE_FILE: Final = "store.json"
STORE_FORMAT: Final = "rmos.store/1"
_LIMIT_BYTES: Final = 100_000
_STORE_ID: Final = r"^[0-9a-f]{32}$"


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

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="forbid")

    format: str
    store_id: Annotated[str, Field(pattern=_STORE_ID)]
    cluster_id: str
    prefix: str
    epoch: Annotated[int, Field(ge=1)]


_shape: Final = TypeAdapter(StoreIdentity)


def is_store_id(text: str) -> bool:
    """Return whether a text has the form of a store's id."""
    return re.fullmatch(_STORE_ID[1:-1], text) is not None


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
    try:
        return _shape.validate_json(text)
    except ValidationError as error:
        raise StoreNotReadyError(
            f"Expected {path} to hold the store's identity, found something else."
        ) from error
