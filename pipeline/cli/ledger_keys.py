"""The key of the ledger: made once, and handed over to another one when it has to be."""

import asyncio
from typing import Annotated

import typer

from pipeline.cli.views.terminal import note, print_json, print_pairs, progress_bar
from pipeline.disk.store_identity import read_store
from pipeline.ledger.keys import vkey_file_of
from pipeline.ledger.rotation import rotate_key
from pipeline.recovery.rebuild.ledger import build_logs, find_missing_leaves
from pipeline.settings import Settings, read_settings
from pipeline.storage.ledger_key import init_ledger_key, key_file_of

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def init(
    accept_loss: Annotated[
        bool,
        typer.Option(
            "--accept-loss",
            help="Build the logs without the records that the broker no longer has.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make the key that signs the ledger of the store in RMOS_DATA_DIR, where there is none.

    Where there is one it is shown and stays as it is. For a store that has consumed records
    without a ledger, the logs are built from the start of its topics; stop the workers first.
    """
    settings = read_settings()
    made = init_ledger_key(settings)
    built = _build(settings, accept_loss=accept_loss)
    document = {
        "key_file": str(made.path),
        "vkey_file": str(made.vkey_path),
        "vkey": str(made.key),
    }
    if as_json:
        print_json(document | {"new": made.is_new, "leaves_built": built})
        return
    if made.is_new:
        note("A new key. Keep a copy of it, apart from the store.")
    else:
        note("There is a key already; it was not touched.")
    if built:
        note(f"{built:,} records that were consumed before have their leaves now.")
    print_pairs(document.items())


def _build(settings: Settings, *, accept_loss: bool) -> int:
    """Build the logs of a store that was written without; return how many records got leaves."""
    missing = asyncio.run(find_missing_leaves(settings))
    if not accept_loss:
        missing.refuse_loss()
    if not missing.offsets:
        asyncio.run(build_logs(settings, missing))
        return 0
    count = 0

    def done(records: int) -> None:
        nonlocal count
        count += records
        advance(records)

    with progress_bar("building logs", missing.offsets) as advance:
        asyncio.run(build_logs(settings, missing, done))
    return count


def rotate(as_json: AsJson = False) -> None:
    """Let a new key take over: every log is signed by both, then by the new one alone.

    The private part of the old key is removed; its public part is still trusted for what it
    signed. A worker that runs meanwhile ends at its next batch, with exit 6: start it again.
    """
    settings = read_settings()
    path = key_file_of(settings, read_store(settings.data_dir))
    rotated = rotate_key(settings.data_dir, path)
    document = {
        "key_file": str(path),
        "vkey_file": str(vkey_file_of(path)),
        "vkey": str(rotated.new),
        "old_vkey": str(rotated.old),
        "note_file": str(rotated.note),
        "logs": rotated.logs,
    }
    if as_json:
        print_json(document)
        return
    note("A new key signs from now on. Keep a copy of it and of the note.")
    print_pairs(document.items())
