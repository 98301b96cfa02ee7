"""The contents of the store that the settings name, opened without its index.

What reads files and logs alone waits for no library of the index: SQLAlchemy takes longer to import
than all the rest.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from pipeline.core.store.contents import StoreContents
from pipeline.disk.contents import disk_contents
from pipeline.errors import InputError
from pipeline.settings import Settings


@contextmanager
def opened_contents(settings: Settings) -> Iterator[StoreContents]:
    """Open the files and the logs of the store for the length of a block.

    Raises:
        StoreNotReadyError: There is no store, or it cannot be used as it is.
        StoreAwayError: A bucket does not answer.
    """
    contents: StoreContents
    if settings.is_shared:
        contents = shared_stores().open_contents(settings)
    else:
        contents = disk_contents(settings.data_dir)
    try:
        yield contents
    finally:
        contents.let_go()


def shared_stores() -> ModuleType:
    """Return what opens stores in a bucket.

    Raises:
        InputError: Its libraries are not installed.
    """
    with in_extra_scale("RMOS_STORE_URL needs"):
        from pipeline.storage import shared  # noqa: PLC0415
    return shared


@contextmanager
def in_extra_scale(who_needs: str) -> Iterator[None]:
    """Import in a block what an extra brings; the sentence begins by `who_needs` it.

    Raises:
        InputError: It is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise InputError(
            f"{who_needs} the extra scale: pip install '.[scale]' in the folder of the source of "
            "RMOS Runs."
        ) from error
