"""The owner of a store on a disk: root does not write into the store of another user."""

import os
import pwd
from contextlib import suppress
from pathlib import Path

from pipeline.core.store.identity import STORE_FILE
from pipeline.disk.faults import store_faults
from pipeline.errors import StoreNotReadyError


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
