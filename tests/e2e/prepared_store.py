"""A store and the key of its ledger, as `rmos store init` and `rmos ledger init` make them."""

from pipeline.core.store.identity import StoreIdentity
from pipeline.disk.store_identity import create_store
from pipeline.settings import Settings
from pipeline.storage.ledger_key import init_ledger_key


def prepare_store(
    settings: Settings, cluster_id: str, *, store_id: str | None = None, epoch: int = 1
) -> StoreIdentity:
    """Make the store that the settings name, and its key where there is none."""
    identity = create_store(
        settings.data_dir,
        cluster_id=cluster_id,
        prefix=settings.prefix,
        store_id=store_id,
        epoch=epoch,
    )
    init_ledger_key(settings)
    return identity
