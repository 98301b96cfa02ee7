"""`rmos ledger`: its key, and what third parties get: checkpoints, proofs, checksums.

A command trusts the keys that its caller names, else the store's own.
"""

import asyncio
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.options import AsJson, with_options
from pipeline.cli.views.terminal import (
    counted,
    note,
    print_bytes,
    print_json,
    print_pairs,
    print_table,
    print_text,
    progress_bar,
)
from pipeline.errors import ArchivedError, InputError, IntegrityError, NotFoundError, input_faults
from pipeline.ledger.keys import vkey_file_of
from pipeline.ledger.reader import FoundLeaf, StoreLogs, find_advisory_leaf, find_run_leaf
from pipeline.ledger.rotation import rotate_key
from pipeline.ledger.tlog import EvidenceError
from pipeline.ledger.tlog.checkpoints import TrustedCheckpoint, parse_trusted, write_trusted
from pipeline.ledger.tlog.merkle import CompactRange, leaf_hash
from pipeline.ledger.tlog.notes import parse_vkey
from pipeline.ledger.witnessed import ComparedLog, compare_trusted
from pipeline.settings import Settings, read_settings
from pipeline.storage.contents import opened_contents

if TYPE_CHECKING:
    from pipeline.storage.reader import RunReader

app = typer.Typer(no_args_is_help=True)


@app.command()
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
    """Make the key that signs the ledger of the store in RMOS_DATA_DIR, if there is none.

    An existing key is shown and not changed. For a store that has consumed records without a
    ledger, the logs are built from the start of its topics; stop the workers first.
    """
    from pipeline.storage.store import init_key

    settings = read_settings()
    made = init_key(settings)
    # A store on many hosts never was without a ledger.
    built = 0 if settings.is_shared else _build(settings, accept_loss=accept_loss)
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
        note(f"Leaves were made for {counted(built, 'record')} consumed before.")
    print_pairs(document.items())


def _build(settings: Settings, *, accept_loss: bool) -> int:
    """Build the logs of a store that was written without; return how many records got leaves."""
    from pipeline.recovery.rebuild.ledger import build_logs, find_missing_leaves

    missing = asyncio.run(find_missing_leaves(settings))
    if not accept_loss:
        missing.refuse_loss()
    with progress_bar() as progress:
        return asyncio.run(build_logs(settings, missing, progress))


@app.command()
def rotate(as_json: AsJson = False) -> None:
    """Replace the key: every log is signed by both keys, then by the new one alone.

    The private part of the old key is removed; its public part is still trusted for what it
    signed. A worker that runs meanwhile ends at its next batch, with exit 6: start it again. Where
    many hosts share the store, put a copy of the new key and the files beside it on each, before.
    """
    from pipeline.storage.ledger_key import key_file_of

    settings = read_settings()
    with opened_contents(settings) as store:
        path = key_file_of(settings, store.identity)
        rotated = rotate_key(store, path)
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
    if settings.is_shared:
        note("Put copies of its files on each other host of the store, then start workers there.")
    print_pairs(document.items())


Keys = Annotated[
    list[str] | None,
    typer.Option(
        "--key",
        metavar="VKEY",
        help="Key whose signature counts, as rmos ledger init printed it; may be repeated. The "
        "store's own if not given.",
    ),
]


@contextmanager
def opened_logs(settings: Settings, given: list[str] | None) -> Iterator[StoreLogs]:
    """Open the logs of the store, signed by the keys that are given or by its own, for a block.

    Raises:
        InputError: What is given is no key.
        StoreNotReadyError: There is no store, or no key is given and it has none of its own here.
        StoreError: The disk failed, or a bucket does not answer.
    """
    from pipeline.storage.ledger_key import verifier_keys

    try:
        keys = [parse_vkey(text) for text in given or ()]
    except EvidenceError as error:
        raise InputError(f"--key: {error}.") from error
    with opened_contents(settings) as store:
        yield StoreLogs(store, keys or verifier_keys(settings, store.identity, store.files))


@contextmanager
def opened_to_prove(given: list[str] | None) -> Iterator[tuple["RunReader", StoreLogs]]:
    """Open the store of the settings for reading, and its logs as `opened_logs` does."""
    from pipeline.storage.reader import RunReader
    from pipeline.storage.store import open_to_read

    settings = read_settings()
    with opened_logs(settings, given) as logs, closing(RunReader(open_to_read(settings))) as reader:
        yield reader, logs


def trusted_file(
    *,
    trusted: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Trusted checkpoints: a file that rmos ledger checkpoint printed earlier.",
        ),
    ] = None,
    held: Annotated[Path | None, typer.Option("--held", hidden=True)] = None,  # its former name
) -> Path | None:
    """Return the file of trusted checkpoints, if one is given."""
    return trusted or held


def read_trusted(path: Path) -> tuple[TrustedCheckpoint, ...]:
    """Return the trusted checkpoints of a file.

    Raises:
        InputError: It cannot be read, or holds no checkpoints.
    """
    with input_faults(f"{path} cannot be read"):
        content = path.read_bytes()
    try:
        return parse_trusted(content)
    except EvidenceError as error:
        raise InputError(
            f"{path} holds no checkpoints as rmos ledger checkpoint prints them: {error}."
        ) from error


@app.command()
def checkpoint(key: Keys = None) -> None:
    """Print the checkpoints of all logs of all epochs: the one file to hand out."""
    with opened_logs(read_settings(), key) as logs:
        opened = list(logs.open_all())
        if not opened:
            raise NotFoundError(
                f"The store {logs.store.name} has no log yet: there is no checkpoint to hand out."
            )
    print_bytes(write_trusted(reader.note for reader in opened))
    leaves = sum(reader.size for reader in opened)
    note(f"{counted(len(opened), 'log')} with {counted(leaves, 'leaf')}")


@app.command()
@with_options(path=trusted_file)
def verify(path: Path | None, key: Keys = None, as_json: AsJson = False) -> None:
    """Prove that every log still begins with its trusted checkpoint; exit 5 if one does not.

    Each leaf that a trusted checkpoint covers is read and hashed again. Newer leaves are not read:
    rmos audit run reads them all.
    """
    if path is None:
        raise InputError("Expected --trusted FILE, as rmos ledger checkpoint printed it.")
    kept = read_trusted(path)
    with opened_logs(read_settings(), key) as logs:
        with progress_bar() as progress:
            found = list(compare_trusted(logs, kept, progress))
        not_held = sorted(logs.by_origin().keys() - {each.origin for each in found})
    faults = sum(each.fault is not None for each in found)
    if as_json:
        compared = list(map(_document, found))
        print_json({"logs": compared, "not_held": not_held, "ok": not faults})
    else:
        print_table(("log", "trusted", "now", "result"), (_row(logs, each) for each in found))
        _note_trust(path, found, not_held, given=bool(key))
    if faults:
        raise typer.Exit(IntegrityError.exit_status)


def _document(found: ComparedLog) -> dict[str, object]:
    return {
        "origin": found.origin,
        "held_size": found.trusted_size,
        "size": found.size,
        "fault": found.fault,
        "ok": found.fault is None,
    }


def _row(logs: StoreLogs, found: ComparedLog) -> tuple[object, ...]:
    name = found.origin.removeprefix(f"rmos/{logs.store_id}/")
    size = "-" if found.size is None else found.size
    return name, found.trusted_size, size, found.fault or "begins with the trusted checkpoint"


def _note_trust(name: Path, found: list[ComparedLog], not_held: list[str], *, given: bool) -> None:
    good = sum(each.fault is None for each in found)
    note(f"{good} of {len(found)} logs begin with their trusted checkpoint.")
    newer = sum((each.size or 0) - each.trusted_size for each in found if each.fault is None)
    if newer:
        note(f"Newer than the trusted checkpoints, so not read: {counted(newer, 'leaf')}.")
    if not_held:
        note(f"Not in {name}, so keep their checkpoints from now on: {len(not_held)} more.")
    if not given:
        note(
            "Signatures were checked with the store's own key: the proof rests on nobody having "
            f"changed {name} since. Give --key to rest it on a key of your own too.",
        )


@app.command()
def prove(
    run_id: Annotated[str, typer.Argument(metavar="RUN_ID")],
    advisory: Annotated[
        str | None, typer.Option(metavar="ADVISORY_ID", help="Prove this advisory of the run.")
    ] = None,
    leaf: Annotated[
        bool, typer.Option("--leaf", help="Print the bytes of the leaf, not its proof.")
    ] = False,
    key: Keys = None,
    as_json: AsJson = False,
) -> None:
    """Print the proof that the log recorded a run: index, path and checkpoint (C2SP tlog-proof).

    --json prints those of the run and of all its advisories, each with its leaf.
    """
    with opened_to_prove(key) as (reader, logs):
        found = dict(_leaves(reader, logs, run_id))
        if as_json:
            print_json({"run_id": run_id, "proofs": [_as_json(each) for each in found.values()]})
            return
        if advisory not in found:
            raise NotFoundError(
                f"ADVISORY_NOT_FOUND: The run {run_id} has no advisory {advisory!r}."
            )
        wanted = found[advisory]
        content = wanted.leaf.encode() if leaf else bytes(wanted.reader.prove(wanted.index))
    print_bytes(content)
    note(f"leaf {wanted.index} of {wanted.reader.checkpoint.origin}")


def _leaves(
    reader: "RunReader", logs: StoreLogs, run_id: str
) -> Iterator[tuple[str | None, FoundLeaf]]:
    """Yield the leaf of a run under None, then those of its advisories under their ids."""
    from pipeline.evidence.gather import find_run

    try:
        found = find_run(reader, logs, run_id)
        run, links = found.run, found.links
    except ArchivedError:
        # Leaf and proof are in the ledger, wherever the file is.
        run, links = reader.rows_of(run_id)
    yield None, find_run_leaf(logs, run)
    for link in links:
        yield link.advisory_id, find_advisory_leaf(logs, link)


def _as_json(found: FoundLeaf) -> dict[str, Any]:
    return {
        "kind": found.leaf.kind,
        "advisory_id": found.leaf.advisory_id,
        "origin": found.reader.checkpoint.origin,
        "index": found.index,
        "size": found.reader.size,
        "leaf": found.leaf.encode().decode(),
        "proof": bytes(found.reader.prove(found.index)).decode(),
    }


@app.command("sums", hidden=True)  # its former name
@app.command()
def checksums(
    date: Annotated[
        datetime | None,
        typer.Argument(metavar="DATE", formats=["%Y-%m-%d"], help="UTC date; all if not given."),
    ] = None,
    root: Annotated[
        bool, typer.Option("--root", help="Print the store root alone: same root, same store.")
    ] = False,
    key: Keys = None,
    as_json: AsJson = False,
) -> None:
    """Print a `sha256sum -c` line for each file of a date or of the store, from the ledger.

    Exit 5, after the lines, if an artifact or a link differs from its leaf. What is archived has no
    line, and there is no store root then: --root exits with 3.
    """
    from pipeline.storage.checksums import checksums_of

    if root and date is not None:
        raise InputError("--root is over the whole store: give no DATE with it.")
    day = None if date is None else f"{date:%Y-%m-%d}"
    tree, archived = CompactRange(), 0
    with opened_logs(read_settings(), key) as logs:
        try:
            for line in checksums_of(logs, day):
                tree.append(leaf_hash(line.encode()))
                if as_json:
                    sha256, _, path = line.partition("  ")
                    print_json({"path": path, "sha256": sha256})
                elif not root:
                    print_text(line, at_once=False)
        except ArchivedError as error:
            if root:
                raise
            archived = error.details["archived"]
            note(str(error))
    store_root = tree.root().hex() if day is None and not archived else None
    if as_json:
        summary = {"lines": tree.size, "archived": archived, "store_root": store_root}
        print_json({"summary": summary})
    elif root:
        print_text(store_root)
    else:
        whole = f"; store root {store_root}" if store_root else ""
        note(f"{counted(tree.size, 'file')}{whole}")
