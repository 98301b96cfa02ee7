"""Open the ledger of a store as the settings say: which key, or none at all.

The private key lies outside the store by default: whoever has the files must not have the key as
well.
"""

import os
from pathlib import Path

import structlog

from pipeline.core.log_id import signer_name
from pipeline.errors import StoreNotReadyError
from pipeline.settings import Settings
from pipeline.storage.identity import StoreIdentity
from pipeline.storage.ledger import Ledger
from pipeline.storage.ledger_keys import load_key

LEDGER_FOLDER = "ledger"
_log = structlog.get_logger(__name__)


def key_file_of(settings: Settings, identity: StoreIdentity) -> Path:
    """Return where the private key of the ledger is kept."""
    if settings.ledger_key_file is not None:
        return settings.ledger_key_file
    configuration = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(configuration) / "rmos" / f"{identity.store_id}.pem"


def open_ledger(settings: Settings, identity: StoreIdentity) -> Ledger | None:
    """Open the ledger of the store at `settings.data_dir`; None where the settings say none.

    Raises:
        StoreNotReadyError: There is no key, or the settings say none and there is a log.
        StoreError: The disk failed.
    """
    root = settings.data_dir
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
