"""Whose word counts for a command: keys that the caller names, else the store's own."""

from typing import Annotated

import typer

from pipeline.core.held_checkpoints import HeldCheckpoint, parse_held
from pipeline.disk.store_identity import read_store
from pipeline.errors import InputError
from pipeline.ledger.tlog.errors import EvidenceError
from pipeline.ledger.tlog.notes import VerifierKey, parse_vkey
from pipeline.settings import Settings
from pipeline.storage.ledger_key import verifier_keys
from pipeline.storage.store_logs import StoreLogs

Keys = Annotated[
    list[str] | None,
    typer.Option(
        "--key",
        metavar="VKEY",
        help="Key whose signature counts, as rmos ledger init printed it; may be repeated. The "
        "store's own if not given.",
    ),
]


def open_logs(settings: Settings, given: list[str] | None) -> StoreLogs:
    """Open the logs of the store, signed by the keys that are given or by its own.

    Raises:
        InputError: What is given is no key.
        StoreNotReadyError: There is no store, or no key is given and it has none of its own here.
        StoreError: The disk failed.
    """
    return StoreLogs(settings.data_dir, _keys(settings, given))


def _keys(settings: Settings, given: list[str] | None) -> list[VerifierKey]:
    if given:
        return list(map(_parse, given))
    return verifier_keys(settings, read_store(settings.data_dir))


def _parse(text: str) -> VerifierKey:
    try:
        return parse_vkey(text)
    except EvidenceError as error:
        message = f"--key: {error}."
        raise InputError(message) from error


def read_held(content: bytes, name: str) -> tuple[HeldCheckpoint, ...]:
    """Return the checkpoints that somebody held.

    Raises:
        InputError: `content` is no file of checkpoints.
    """
    try:
        return parse_held(content)
    except EvidenceError as error:
        message = f"{name} holds no checkpoints as rmos ledger checkpoint prints them: {error}."
        raise InputError(message) from error
