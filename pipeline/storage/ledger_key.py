"""Opens the ledger of a store with the key of the settings, or without one.

The private key lies outside the store by default: an owner of the files must not own the
key as well. Beside it lies the public part of the same name, for verifiers.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from pipeline.core.store.contents import StoreContents
from pipeline.core.store.files import Files
from pipeline.core.store.identity import StoreIdentity, read_identity
from pipeline.core.store.log_store import LEDGER_FOLDER
from pipeline.disk.contents import disk_contents
from pipeline.disk.log_store import open_to_write
from pipeline.disk.owner import refuse_as_root
from pipeline.disk.stored_files import StoredFiles
from pipeline.errors import StoreNotReadyError
from pipeline.ledger import keys
from pipeline.ledger.log_id import signer_name
from pipeline.ledger.reader import StoreLogs
from pipeline.ledger.stored_log import find_logs
from pipeline.ledger.tlog.notes import VerifierKey
from pipeline.ledger.writer import Ledger
from pipeline.settings import Settings

_log = structlog.get_logger(__name__)


def key_file_of(settings: Settings, identity: StoreIdentity) -> Path:
    """Return where the private key of the ledger is kept."""
    if settings.ledger_key_file is not None:
        return settings.ledger_key_file
    configuration = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(configuration) / "rmos" / f"{identity.store_id}.pem"


@dataclass(frozen=True, slots=True)
class LedgerKey:
    """The key of a ledger.

    Attributes:
        path: Where the private part is.
        key: The public part.
        is_new: Whether it was made just now.
    """

    path: Path
    key: VerifierKey
    is_new: bool

    @property
    def vkey_path(self) -> Path:
        """Where the public part is."""
        return keys.vkey_file_of(self.path)


def init_ledger_key(settings: Settings) -> LedgerKey:
    """Make the ledger's key where there is none; return it.

    Raises:
        StoreNotReadyError: There is no store, or its logs are signed by a key that is not there.
        StoreError: The key cannot be written.
    """
    store = disk_contents(settings.data_dir)
    refuse_as_root(settings.data_dir)
    return init_key_of(settings, store)


def init_key_of(settings: Settings, store: StoreContents) -> LedgerKey:
    """Make the key of a store that is open, where there is none; return it.

    Raises:
        StoreNotReadyError: As `init_ledger_key`.
        StoreError: The key cannot be written.
    """
    identity = store.identity
    path = key_file_of(settings, identity)
    is_new = not path.exists()
    if is_new:
        _refuse_second_key(store, path)
        signer = keys.make_key(path, signer_name(identity.store_id))
    else:
        signer = keys.load_own_key(store.logs, path, identity.store_id)
    if keys.read_vkey(path, signer.name) is None:
        keys.write_vkey(path, signer.key)
    return LedgerKey(path, signer.key, is_new)


def _refuse_second_key(store: StoreContents, path: Path) -> None:
    with store.faults():
        logs = find_logs(store.logs)
    if logs:
        raise StoreNotReadyError(
            f"The store {store.name} has logs that another key signs: put that key back at {path}, "
            "or set RMOS_LEDGER_KEY_FILE to where it is."
        )
    vkey = keys.vkey_file_of(path)
    if vkey.exists():
        # A verifier would go on with the old one.
        raise StoreNotReadyError(
            f"The public part of another key is at {vkey}, and no key at {path}: put that key "
            "back, or move its public part away and keep it for those who check."
        )


def open_ledger(settings: Settings) -> Ledger | None:
    """Open the ledger of the store at `settings.data_dir`; None where the settings have none.

    Raises:
        StoreNotReadyError: There is no store or no key, it is that of another store, or the
            settings say none and there is a log.
    """
    store = disk_contents(settings.data_dir)
    files, logs = open_to_write(settings.data_dir)
    return open_ledger_of(settings, replace(store, files=files, logs=logs))


def open_ledger_of(settings: Settings, store: StoreContents) -> Ledger | None:
    """Open the ledger of a store that is open to write; None where the settings have none.

    Raises:
        StoreNotReadyError: As `open_ledger`.
    """
    store_id = store.identity.store_id
    if settings.ledger_enabled:
        path = key_file_of(settings, store.identity)
        in_use = keys.KeyInUse(path)
        signer = keys.load_own_key(store.logs, path, store_id)
        return Ledger(store.files, store.logs, store_id, [signer], key_in_use=in_use)
    if store.files.has_folder(LEDGER_FOLDER):
        raise StoreNotReadyError(
            f"The store {store.name} has a ledger, which must not end: RMOS_LEDGER_ENABLED=false "
            "is for measuring with a store of its own."
        )
    _log.warning("no ledger is written: nobody can prove this store to others", store=store.name)
    return None


def open_store_logs(settings: Settings, store: StoreContents) -> StoreLogs:
    """Open the logs of a store, under checkpoints that `verifier_keys` have signed.

    Args:
        settings: Where the keys are.
        store: A store that is open, whose epoch is asked for again.

    Raises:
        StoreNotReadyError: There is no store, or no key.
    """
    store = replace(store, identity=read_identity(store.files))
    return StoreLogs(store, verifier_keys(settings, store.identity, store.files))


def verifier_keys(
    settings: Settings, identity: StoreIdentity, files: Files | None = None
) -> list[VerifierKey]:
    """Return the public keys whose signatures under checkpoints of the store count.

    The one that signs now first, then those that it took over from. The private key is not needed
    where its public part lies beside its place. None where the settings say that no ledger is
    written, and none was.

    Raises:
        StoreNotReadyError: There is no key, or the files about it are not what was written.
    """
    if not settings.ledger_enabled:
        found = StoredFiles(settings.data_dir) if files is None else files
        if not found.has_folder(LEDGER_FOLDER):
            return []
    path = key_file_of(settings, identity)
    name = signer_name(identity.store_id)
    current = keys.read_vkey(path, name)
    if current is None:
        if settings.is_shared and not path.exists():
            raise StoreNotReadyError(
                f"There is no ledger key at {path}, nor its public part {keys.vkey_file_of(path)}: "
                "put a copy of that of another host there, or set RMOS_LEDGER_KEY_FILE."
            )
        current = keys.load_key(path, name).key
    return [current, *keys.earlier_keys(path, current)]
