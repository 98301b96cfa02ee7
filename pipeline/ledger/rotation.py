"""The replacement of the ledger's key: every log is signed by both, then by the new alone.

The procedure, with the same numbers in the code, and what is left if the process dies after a
step. Run again, it goes on from there.

| step | if the process dies after it |
|---|---|
| 1. take the store's lock: no process writes meanwhile | nothing |
| 2. make the new key under another name | an unused key |
| 3. check every log, sign its checkpoint by both keys | workers go on with the old key |
| 4. keep the note of the change, signed by both | the same |
| 5. write the public part of the new key | the same; readers know both keys |
| 6. of many hosts: put the new key in force | no worker starts until it is run again |
| 7. rename the new key over the old one, which is gone | the new key signs |

A worker that was running finds another key in the file, or in force, at its next batch, and stops
before it writes anything.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline.core.store.contents import StoreContents
from pipeline.core.store.log_store import Head, LogStore
from pipeline.disk.small_files import flush_folder
from pipeline.errors import StoreError, StoreNotReadyError
from pipeline.ledger.keys import load_key, load_own_key, make_key, write_rotation, write_vkey
from pipeline.ledger.log_id import LogId
from pipeline.ledger.stored_log import StoredLog, fetch_tiles, find_logs, ledger_faults
from pipeline.ledger.tlog import EvidenceError
from pipeline.ledger.tlog.append import TreeAppender
from pipeline.ledger.tlog.checkpoints import Checkpoint, open_checkpoint, sign_checkpoint
from pipeline.ledger.tlog.notes import NoteSigner, VerifierKey, sign_rotation
from pipeline.ledger.tlog.tiles import rightmost_tiles


@dataclass(frozen=True, slots=True)
class RotatedKey:
    """What a rotation did.

    Attributes:
        old: The key that signed before.
        new: The key that signs from now on.
        logs: Number of logs whose checkpoints both have signed.
        note: Where the note of the change is.
    """

    old: VerifierKey
    new: VerifierKey
    logs: int
    note: Path


def rotate_key(store: StoreContents, key_file: Path) -> RotatedKey:
    """Let a new key take over from the one in `key_file`, for `store`.

    Raises:
        StoreNotReadyError: There is no key, it is that of another store, or another host has
            changed it.
        IntegrityError: A log is not what was written; the old key goes on.
        StoreError: The disk failed; the old key goes on, or the new one has taken over.
    """
    store_id, logs = store.identity.store_id, store.logs
    with logs.faults(), store.lock.alone():  # 1.
        old = load_own_key(logs, key_file, store_id)
        new = _next_key(key_file, old.name)  # 2.
        in_force = store.lock.key_in_force()
        if in_force not in {None, str(old.key), str(new.key)}:
            raise StoreNotReadyError(
                f"The store {store.name} is signed by {in_force}, and the key at {key_file} is "
                f"{old.key}: put a copy of the file of that key in its place, and of the files "
                "beside it. Nothing was signed."
            )
        signed = _sign_by_both(logs, store_id, [old, new])  # 3.
        note = write_rotation(key_file, sign_rotation(old, new))  # 4.
        write_vkey(key_file, new.key)  # 5.
        store.lock.put_in_force(str(new.key))  # 6.
        _take_over(key_file)  # 7.
    return RotatedKey(old.key, new.key, signed, note)


def _next_file(key_file: Path) -> Path:
    return key_file.with_name(f"{key_file.name}.next")


def _next_key(key_file: Path, name: str) -> NoteSigner:
    path = _next_file(key_file)
    # A killed rotation may have signed with it already.
    return load_key(path, name) if path.exists() else make_key(path, name)


def _sign_by_both(store: LogStore, store_id: str, signers: Sequence[NoteSigner]) -> int:
    """Replace the checkpoint of every log by the same one, signed by both; return their number."""
    with store.faults():
        logs = find_logs(store)
        paths = [log.path for log in logs]
        with store.locked(paths) as locked:
            heads = locked.heads(paths)
            checked = {
                StoredLog(locked, log): _checkpoint(log, heads.get(log.path), store_id, signers)
                for log in logs
            }
            fetch_tiles({log: partial(rightmost_tiles, each.size) for log, each in checked.items()})
            swaps = {
                stored.log.path: (heads[stored.log.path], _signed_by_both(stored, each, signers))
                for stored, each in checked.items()
            }
            if swaps:
                locked.swap(swaps)
    return len(logs)


def _checkpoint(
    log: LogId, head: Head | None, store_id: str, signers: Sequence[NoteSigner]
) -> Checkpoint:
    with ledger_faults(log):
        if head is None:
            raise EvidenceError("expected a checkpoint, found none")
        keys = [signer.key for signer in signers]
        return open_checkpoint(head.note, keys, origin=log.origin(store_id))


def _signed_by_both(
    stored: StoredLog, checkpoint: Checkpoint, signers: Sequence[NoteSigner]
) -> bytes:
    with ledger_faults(stored.log):
        if TreeAppender.resume(checkpoint.size, stored.read_tile).root() != checkpoint.root:
            raise EvidenceError(f"expected the tiles of the root {checkpoint.root.hex()}")
        return sign_checkpoint(checkpoint, signers)


def _take_over(key_file: Path) -> None:
    try:
        _next_file(key_file).replace(key_file)
        flush_folder(key_file.parent)
    except OSError as error:
        raise StoreError(
            f"The new ledger key cannot take its place at {key_file}: {error.strerror}; run it "
            "again."
        ) from error
