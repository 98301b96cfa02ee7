"""The files of the ledger's key: the private key, its public part and the notes of its changes.

The private key is made once and readable by its owner alone: PKCS #8 in PEM (RFC 8410), so that
other programs read it too: `openssl pkey -in FILE -pubout`. It is kept outside the store: an owner
of the files must not own the key as well.

`<key>.vkey` holds the key that signs now, as a line. `<key>.rotation-1`, `-2` and so on are the
notes of its changes, each signed by the key before and the key after. With these, every checkpoint
that the store ever signed can be checked without the private key.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from pipeline.core.store.files import NotAFileError
from pipeline.core.store.log_store import LogStore
from pipeline.disk.private_files import NotPrivateError, file_mark, read_private
from pipeline.disk.regular_files import read_named
from pipeline.disk.small_files import create_file, replace_file
from pipeline.errors import StoreError, StoreNotReadyError
from pipeline.ledger.log_id import signer_name
from pipeline.ledger.stored_log import find_logs
from pipeline.ledger.tlog import EvidenceError
from pipeline.ledger.tlog.notes import (
    KeyRotation,
    NoteSigner,
    VerifierKey,
    open_rotation,
    parse_note,
    parse_vkey,
)

KEY_MODE = 0o600
_KEY_LIMIT_BYTES = 10_000


def make_key(path: Path, name: str) -> NoteSigner:
    """Make a new key in the file at `path`, durably; return the signer with this `name`.

    Raises:
        StoreNotReadyError: There is a file already; it was not touched.
    """
    key = Ed25519PrivateKey.generate()
    content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with _written("The ledger key", path):
        made = create_file(path, content, KEY_MODE)
    if not made:
        raise StoreNotReadyError(f"There is a ledger key at {path} already; it was not touched.")
    return NoteSigner(name, key)


@contextmanager
def _written(what: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"{what} cannot be written at {path}: {error.strerror}.") from error


class KeyInUse:
    """Notices that a key is no longer the one in its file: another took over meanwhile."""

    def __init__(self, path: Path) -> None:
        """Look at the file at `path`, before the key is read from it."""
        self._path = path
        self._found = file_mark(path)

    def check(self) -> None:
        """Refuse to go on with a key that another has replaced; one that was removed is the same.

        Raises:
            StoreError: The file holds another key now; nothing was written.
        """
        if file_mark(self._path) not in {self._found, None}:
            raise StoreError(
                f"The ledger key at {self._path} was replaced meanwhile; nothing was acknowledged; "
                "start again."
            )


def load_key(path: Path, name: str) -> NoteSigner:
    """Return the signer whose key is in the file at `path`.

    Raises:
        StoreNotReadyError: There is no key, another user may read or write it, or it is not
            an Ed25519 key.
    """
    try:
        content = read_private(path, _KEY_LIMIT_BYTES)
    except FileNotFoundError:
        raise StoreNotReadyError(
            f"There is no ledger key at {path}: run rmos ledger init."
        ) from None
    except NotAFileError as error:
        raise StoreNotReadyError(f"Expected a file at {path}, found {error}.") from error
    except NotPrivateError as error:
        raise _not_private(path, error.mode) from error
    except OSError as error:
        raise StoreNotReadyError(
            f"The ledger key at {path} cannot be read: {error.strerror}."
        ) from error
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError) as error:
        raise StoreNotReadyError(
            f"Expected a private key in PEM without a password at {path}."
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise StoreNotReadyError(f"Expected an Ed25519 key at {path}, found another kind.")
    return NoteSigner(name, key)


def _not_private(path: Path, mode: int | None) -> StoreNotReadyError:
    if mode is None:
        return StoreNotReadyError(
            f"The ledger key at {path} belongs to another user, who may change it."
        )
    return StoreNotReadyError(
        f"The ledger key at {path} has mode {mode:04o}, so others than its owner may use it: run "
        f"chmod 600 {path}, or make a new one."
    )


PUBLIC_MODE = 0o644
_LIMIT_BYTES = 100_000
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")


def vkey_file_of(key_file: Path) -> Path:
    """Return where the public part of the key in `key_file` is kept."""
    return key_file.with_name(f"{key_file.name}.vkey")


def write_vkey(key_file: Path, key: VerifierKey) -> None:
    """Write the public part of a key beside it, in place of that of the key before."""
    path = vkey_file_of(key_file)
    with _written("The public key of the ledger", path):
        replace_file(path, f"{key}\n".encode(), PUBLIC_MODE)


def read_vkey(key_file: Path, name: str) -> VerifierKey | None:
    """Return the public part of the key in `key_file`; the private one is not read. None for none.

    Args:
        key_file: Where the private key is, or was.
        name: Under which the store signs.

    Raises:
        StoreNotReadyError: It cannot be read, is none, or is that of another store.
    """
    path = vkey_file_of(key_file)
    content = _read(path)
    if content is None:
        return None
    try:
        key = parse_vkey(content.decode().removesuffix("\n"))
    except (EvidenceError, UnicodeDecodeError) as error:
        raise StoreNotReadyError(
            f"Expected the public key of the ledger at {path}: {error}."
        ) from error
    if key.name != name:
        raise StoreNotReadyError(
            f"Expected the public key of {name} at {path}, found that of {key.name}: set "
            "RMOS_LEDGER_KEY_FILE to the key of this store."
        )
    return key


def load_own_key(logs: LogStore, key_file: Path, store_id: str) -> NoteSigner:
    """Return the signer whose key is in `key_file`, which must be the key of the store of `logs`.

    A private key does not name its owner; its public part beside it does, and so does every
    checkpoint in the store. Nothing may be signed before both were asked.

    Raises:
        StoreNotReadyError: There is no key, or it is that of another store.
    """
    signer = load_key(key_file, signer_name(store_id))
    public = read_vkey(key_file, signer.key.name)
    # A change of key that was killed leaves the public part of the new key beside the old one.
    known = [public or signer.key, *earlier_keys(key_file, public or signer.key)]
    if signer.key not in known:
        raise StoreNotReadyError(
            f"The ledger key at {key_file} is not the one whose public part is at "
            f"{vkey_file_of(key_file)}: put the key of this store back; nothing was signed."
        )
    with logs.faults():
        for log, head in logs.heads(log.path for log in find_logs(logs)).items():
            _check_signer(log, head.note, key_file, [*known, signer.key])
    return signer


def _check_signer(
    log: str, checkpoint: bytes, key_file: Path, known: Sequence[VerifierKey]
) -> None:
    """Refuse where a log is signed by keys of the store's name, and by none that is known.

    What else is wrong with a checkpoint is for those who read the log.
    """
    name = known[0].name
    try:
        note = parse_note(checkpoint)
    except EvidenceError:
        return
    signed = {each.key_id for each in note.signatures if each.name == name}
    if signed and signed.isdisjoint(key.key_id for key in known):
        raise StoreNotReadyError(
            f"The ledger key at {key_file} is not the key of this store: {log} is "
            f"signed by {name}+{min(signed).hex()}; set RMOS_LEDGER_KEY_FILE to that key; nothing "
            "was signed."
        )


def earlier_keys(key_file: Path, current: VerifierKey) -> list[VerifierKey]:
    """Return the keys that signed before `current`, the last one first.

    A note that does not lead to `current` is of a change that was not finished; it counts for
    nothing.

    Raises:
        StoreNotReadyError: A note is not what was written.
    """
    keys = [current]
    for _, path in reversed(_numbered(key_file)):
        rotation = _read_rotation(path)
        if rotation.new == keys[-1]:
            keys.append(rotation.old)
    return keys[1:]


def write_rotation(key_file: Path, note: bytes) -> Path:
    """Keep the note of a change of key for good; return where. A note that is there is found."""
    before = _numbered(key_file)
    for _, path in before:
        if _read(path) == note:
            return path
    number = before[-1][0] + 1 if before else 1
    path = key_file.with_name(f"{key_file.name}.rotation-{number}")
    with _written("The note of the new key", path):
        made = create_file(path, note, PUBLIC_MODE)
    if not made:
        raise StoreError(f"Another process changes the key too: there is {path} already.")
    return path


def _numbered(key_file: Path) -> list[tuple[int, Path]]:
    start = f"{key_file.name}.rotation-"
    try:
        names = [path.name for path in key_file.parent.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StoreNotReadyError(
            f"The folder {key_file.parent} cannot be read: {error.strerror}."
        ) from error
    numbers = [name.removeprefix(start) for name in names if name.startswith(start)]
    return sorted(
        (int(number), key_file.with_name(start + number))
        for number in numbers
        if _NUMBER.fullmatch(number)
    )


def _read_rotation(path: Path) -> KeyRotation:
    content = _read(path)
    try:
        return open_rotation(content or b"")
    except EvidenceError as error:
        raise StoreNotReadyError(
            f"Expected the note of a change of key at {path}: {error}."
        ) from error


def _read(path: Path) -> bytes | None:
    try:
        return read_named(path, _LIMIT_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StoreNotReadyError(
            f"The file {path} cannot be read: {error.strerror or error}."
        ) from error
