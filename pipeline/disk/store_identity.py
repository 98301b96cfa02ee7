"""The identity of a store: `store.json` with its id, its epoch and its Kafka cluster.

A folder without it is refused: an unmounted volume must not become a new, empty store.
"""

import os
import secrets
from dataclasses import asdict, replace
from pathlib import Path

from pipeline.core.json.canonical import canonical_json
from pipeline.core.store.files import Creation, NewFile
from pipeline.core.store.identity import (
    STORE_FILE,
    STORE_FORMAT,
    StoreIdentity,
    is_store_id,
    read_identity,
)
from pipeline.disk.durable_files import FILE_MODE, DurableFiles
from pipeline.disk.faults import store_faults
from pipeline.disk.locks import INDEX_LOCK, exclusive_lock
from pipeline.disk.owner import refuse_as_root
from pipeline.disk.small_files import flush_folder, remove_leftovers, replace_file
from pipeline.disk.stored_files import StoredFiles
from pipeline.disk.system_calls import SystemCalls
from pipeline.disk.volume import NOT_OURS
from pipeline.errors import InputError, StoreNotReadyError


def create_store(
    root: Path, *, cluster_id: str, prefix: str, store_id: str | None = None, epoch: int = 1
) -> StoreIdentity:
    """Make a store at `root`, a new folder or an empty one.

    Raises:
        InputError: `store_id` or `epoch` is not of its form.
        StoreNotReadyError: There is a store already, or something else.
    """
    identity = new_identity(cluster_id=cluster_id, prefix=prefix, store_id=store_id, epoch=epoch)
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


def new_identity(
    *, cluster_id: str, prefix: str, store_id: str | None = None, epoch: int = 1
) -> StoreIdentity:
    """Return the identity of a new store; its id is random where none is given.

    Raises:
        InputError: `store_id` or `epoch` is not of its form.
    """
    if store_id is not None and not is_store_id(store_id):
        raise InputError(f"Expected a store id of 32 lower-case hex digits, found {store_id!r}.")
    if epoch < 1:
        raise InputError(f"Expected an epoch from 1, found {epoch}.")
    return StoreIdentity(STORE_FORMAT, store_id or secrets.token_hex(16), cluster_id, prefix, epoch)


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


def read_store(root: Path) -> StoreIdentity:
    """Return the identity of the store at `root`.

    Raises:
        StoreNotReadyError: There is no store, or one of another format.
    """
    return read_identity(StoredFiles(root))


def check_identity(
    identity: StoreIdentity, name: Path | str, *, cluster_id: str, prefix: str
) -> None:
    """Check that the store keeps the log of this cluster and prefix.

    Raises:
        StoreNotReadyError: It keeps another; nothing was consumed.
    """
    if identity.cluster_id != cluster_id:
        raise StoreNotReadyError(
            f"The store {name} belongs to the Kafka cluster {identity.cluster_id}, the broker is "
            f"of {cluster_id}: set RMOS_BOOTSTRAP_SERVERS to its own broker, or, after a new "
            "broker, run rmos store new-epoch."
        )
    if identity.prefix != prefix:
        raise StoreNotReadyError(
            f"The store {name} keeps the topics {identity.prefix}.*, RMOS_PREFIX says {prefix}: "
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
