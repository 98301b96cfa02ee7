"""The ledger's private key in a file: made once, readable by its owner alone.

PKCS #8 in PEM (RFC 8410), so that other programs read it too: `openssl pkey -in FILE -pubout`.
It is kept outside the store: whoever has the files must not have the key as well.
"""

import os
import stat
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from pipeline.disk.small_files import create_file
from pipeline.errors import StoreError, StoreNotReadyError
from pipeline.ledger.tlog.notes import NoteSigner

KEY_MODE = 0o600
_OF_OTHERS = 0o077
_KEY_LIMIT_BYTES = 10_000


def make_key(path: Path, name: str) -> NoteSigner:
    """Make a new key in the file at `path`, durably; return the signer with this `name`.

    Raises:
        StoreNotReadyError: There is a file already; it was not touched.
        StoreError: The disk failed.
    """
    key = Ed25519PrivateKey.generate()
    content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        made = create_file(path, content, KEY_MODE)
    except OSError as error:
        message = f"The ledger key cannot be written at {path}: {error.strerror}."
        raise StoreError(message) from error
    if not made:
        message = f"There is a ledger key at {path} already; it was not touched."
        raise StoreNotReadyError(message)
    return NoteSigner(name, key)


class KeyInUse:
    """Notices that a key is no longer the one in its file: another took over meanwhile."""

    def __init__(self, path: Path) -> None:
        """Look at the file at `path`, before the key is read from it."""
        self._path = path
        self._found = self._look()

    def check(self) -> None:
        """Refuse to go on with a key that another has replaced; one that was removed is the same.

        Raises:
            StoreError: The file holds another key now; nothing was written.
        """
        if self._look() not in {self._found, None}:
            message = (
                f"The ledger key at {self._path} was replaced meanwhile; nothing was acknowledged; "
                "start again."
            )
            raise StoreError(message)

    def _look(self) -> tuple[int, int, int] | None:
        try:
            state = self._path.stat()
        except OSError:
            return None
        # A number of an inode is used again; together with a time it is not.
        return state.st_dev, state.st_ino, state.st_mtime_ns


def load_key(path: Path, name: str) -> NoteSigner:
    """Return the signer whose key is in the file at `path`.

    Raises:
        StoreNotReadyError: There is no key, somebody else may read or write it, or it is not
            an Ed25519 key.
    """
    try:
        content = _read_private(path)
    except FileNotFoundError:
        message = f"There is no ledger key at {path}: run rmos ledger init."
        raise StoreNotReadyError(message) from None
    except OSError as error:
        message = f"The ledger key at {path} cannot be read: {error.strerror}."
        raise StoreNotReadyError(message) from error
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError) as error:
        message = f"Expected a private key in PEM without a password at {path}."
        raise StoreNotReadyError(message) from error
    if not isinstance(key, Ed25519PrivateKey):
        message = f"Expected an Ed25519 key at {path}, found another kind."
        raise StoreNotReadyError(message)
    return NoteSigner(name, key)


def _read_private(path: Path) -> bytes:
    # Without waiting: a pipe in place of the file would hold the caller.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:  # noqa: PTH123  # a descriptor, not a path
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            message = f"Expected a file at {path}, found something else."
            raise StoreNotReadyError(message)
        if state.st_mode & _OF_OTHERS:
            message = (
                f"The ledger key at {path} has mode {stat.S_IMODE(state.st_mode):04o}, so others "
                f"than its owner may use it: run chmod 600 {path}, or make a new one."
            )
            raise StoreNotReadyError(message)
        if state.st_uid not in {os.geteuid(), 0}:
            message = f"The ledger key at {path} belongs to another user, who may change it."
            raise StoreNotReadyError(message)
        return file.read(_KEY_LIMIT_BYTES)
