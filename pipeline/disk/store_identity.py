"""The identity of a store: `store.json` with its id, its epoch and its Kafka cluster.

A folder without it is refused: an unmounted volume must not become a new, empty store.
"""

import json
import os
import pwd
import re
import secrets
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.core.json.canonical import canonical_json
from pipeline.core.store.files import Creation, NewFile
from pipeline.disk.durable_files import FILE_MODE, DurableFiles
from pipeline.disk.faults import store_faults
from pipeline.disk.locks import INDEX_LOCK, exclusive_lock
from pipeline.disk.regular_files import NotAFileError, read_below
from pipeline.disk.small_files import flush_folder, remove_leftovers, replace_file
from pipeline.disk.system_calls import SystemCalls
from pipeline.disk.volume import NOT_OURS
from pipeline.errors import InputError, StoreNotReadyError

STORE_FORMAT = "rmos.store/1"
STORE_FILE = "store.json"
_IDENTITY_LIMIT_BYTES = 100_000
_STORE_ID = re.compile(r"[0-9a-f]{32}")


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


def create_store(
    root: Path, *, cluster_id: str, prefix: str, store_id: str | None = None, epoch: int = 1
) -> StoreIdentity:
    """Make a store at `root`, a new folder or an empty one.

    Raises:
        InputError: `store_id` or `epoch` is not of its form.
        StoreNotReadyError: There is a store already, or something else.
    """
    if store_id is not None and not _STORE_ID.fullmatch(store_id):
        raise InputError(f"Expected a store id of 32 lower-case hex digits, found {store_id!r}.")
    if epoch < 1:
        raise InputError(f"Expected an epoch from 1, found {epoch}.")
    identity = StoreIdentity(
        STORE_FORMAT, store_id or secrets.token_hex(16), cluster_id, prefix, epoch
    )
    refuse_as_root(root)
    with store_faults(root):
        _make_folder(root)
        _refuse_store(root)
        remove_leftovers(root, SystemCalls())
        _refuse_foreign_content(root)
        made = DurableFiles(root).create([NewFile(STORE_FILE, canonical_json(asdict(identity)))])
    # Of two that make a store at the same time one was first.
    if made[STORE_FILE] is not Creation.CREATED:
        _refuse_store(root)
    return identity


def _make_folder(path: Path) -> None:
    """Make a folder and those above it, each for good."""
    if path.is_dir():
        return
    _make_folder(path.parent)
    path.mkdir(exist_ok=True)
    flush_folder(path.parent)


def _refuse_store(root: Path) -> None:
    if os.path.lexists(root / STORE_FILE):
        raise StoreNotReadyError(f"There is a store at {root} already; rmos store status shows it.")


def _refuse_foreign_content(root: Path) -> None:
    # The local broker's data may be there first, as the store needs its cluster id.
    found = sorted(entry.name for entry in root.iterdir() if entry.name not in NOT_OURS)
    if STORE_FILE in found:
        _refuse_store(root)
    if found:
        raise StoreNotReadyError(
            f"Expected {root} to be a new or an empty folder for a store, found {found[0]} in it."
        )


def refuse_as_root(root: Path) -> None:
    """Refuse to write as root into the store of another user, who could not write there any more.

    Others than root are refused by the system, at the first file.

    Raises:
        StoreNotReadyError: We are root, and the store at `root` belongs to another user.
    """
    if os.geteuid() != 0:
        return
    with store_faults(root):
        for path in (root, root / STORE_FILE):
            with suppress(FileNotFoundError, NotADirectoryError):
                if owner := path.stat().st_uid:
                    raise StoreNotReadyError(
                        f"The store {root} belongs to user {_name_of(owner)}, and what root writes "
                        "there is closed to the workers: run this as that user. Nothing was "
                        "written."
                    )


def _name_of(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def read_store(root: Path) -> StoreIdentity:
    """Return the identity of the store at `root`.

    Raises:
        StoreNotReadyError: There is no store, or one of another format.
    """
    path = root / STORE_FILE
    with store_faults(root):
        try:
            text = read_below(root, STORE_FILE, _IDENTITY_LIMIT_BYTES)
        except NotAFileError as error:
            raise StoreNotReadyError(
                f"Expected {path} to hold the store's identity, found {error}."
            ) from error
        except (FileNotFoundError, NotADirectoryError):
            raise StoreNotReadyError(
                f"There is no store at {root}: mount its volume, or make a new store with "
                "rmos store init."
            ) from None
    return _parse_identity(path, text)


def _parse_identity(path: Path, text: bytes) -> StoreIdentity:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise StoreNotReadyError(
            f"Expected {path} to hold the store's identity, found {error}."
        ) from error
    # The format first: that of another version has other fields.
    if isinstance(found, dict) and found.get("format", STORE_FORMAT) != STORE_FORMAT:
        raise StoreNotReadyError(
            f"Expected a store of format {STORE_FORMAT} at {path.parent}, found "
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
        and _STORE_ID.fullmatch(found["store_id"]) is not None
        and type(found["epoch"]) is int
        and found["epoch"] >= 1
    )


def check_identity(identity: StoreIdentity, root: Path, *, cluster_id: str, prefix: str) -> None:
    """Check that the store keeps the log of this cluster and prefix.

    Raises:
        StoreNotReadyError: It keeps another; nothing was consumed.
    """
    if identity.cluster_id != cluster_id:
        raise StoreNotReadyError(
            f"The store {root} belongs to the Kafka cluster {identity.cluster_id}, the broker is "
            f"of {cluster_id}: set RMOS_BOOTSTRAP_SERVERS to its own broker, or, after a new "
            "broker, run rmos store new-epoch."
        )
    if identity.prefix != prefix:
        raise StoreNotReadyError(
            f"The store {root} keeps the topics {identity.prefix}.*, RMOS_PREFIX says {prefix}: "
            "set the prefix of the store."
        )


def begin_epoch(root: Path, *, cluster_id: str) -> StoreIdentity:
    """Go on with a new broker: the next epoch, of the cluster `cluster_id`.

    `store.json` is replaced by rename; files and rows of earlier epochs stay as they are.

    Raises:
        StoreNotReadyError: There is no store.
    """
    read_store(root)
    refuse_as_root(root)
    with store_faults(root), exclusive_lock(root / INDEX_LOCK):
        current = read_store(root)
        following = replace(current, cluster_id=cluster_id, epoch=current.epoch + 1)
        replace_file(root / STORE_FILE, canonical_json(asdict(following)), FILE_MODE)
    return following
