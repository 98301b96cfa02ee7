"""Open the ledger of a store as the settings say: which key, or none at all.

The private key lies outside the store by default: whoever has the files must not have the key as
well. Beside it lies the public part of the same name, for those who only check.
"""

import os
from pathlib import Path

import structlog

from pipeline.core.log_id import signer_name
from pipeline.errors import StoreNotReadyError
from pipeline.settings import Settings
from pipeline.storage.identity import StoreIdentity, read_store
from pipeline.storage.ledger import Ledger
from pipeline.storage.ledger_keys import load_key, make_key

LEDGER_FOLDER = "ledger"
_log = structlog.get_logger(__name__)


def key_file_of(settings: Settings, identity: StoreIdentity) -> Path:
    """Return where the private key of the ledger is kept."""
    if settings.ledger_key_file is not None:
        return settings.ledger_key_file
    configuration = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(configuration) / "rmos" / f"{identity.store_id}.pem"


def make_ledger_key(settings: Settings) -> Path | None:
    """Make the ledger's key where there is none, and a new store; return where it lies.

    Returns:
        None where there is a key, or a ledger whose key must not be replaced by another.

    Raises:
        StoreNotReadyError: There is no store.
        StoreError: The key cannot be written.
    """
    identity = read_store(settings.data_dir)
    path = key_file_of(settings, identity)
    if path.exists() or (settings.data_dir / LEDGER_FOLDER).exists():
        return None
    make_key(path, signer_name(identity.store_id))
    return path


def open_ledger(settings: Settings) -> Ledger | None:
    """Open the ledger of the store at `settings.data_dir`; None where the settings say none.

    Raises:
        StoreNotReadyError: There is no store or no key, or the settings say none and there is a
            log.
        StoreError: The disk failed.
    """
    root = settings.data_dir
    identity = read_store(root)
    if settings.ledger_enabled:
        signer = load_key(key_file_of(settings, identity), signer_name(identity.store_id))
        return Ledger(root, identity.store_id, [signer])
    if (root / LEDGER_FOLDER).exists():
        message = (
            f"The store {root} has a ledger, which must not end: RMOS_LEDGER_ENABLED=false is "
            "for measuring with a store of its own."
        )
        raise StoreNotReadyError(message)
    _log.warning("no ledger is written: nobody can prove this store to others", store=str(root))
    return None
