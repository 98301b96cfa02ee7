"""What the ledger gives to outsiders: checkpoints to hold, proofs, and sums of files."""

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.trusted_keys import Keys, open_logs, read_held
from pipeline.cli.views.terminal import (
    note,
    print_bytes,
    print_json,
    print_table,
    print_text,
    progress_bar,
)
from pipeline.core.held_checkpoints import write_held
from pipeline.errors import InputError, IntegrityError, NotFoundError
from pipeline.evidence.gather import find_run
from pipeline.ledger.search import FoundLeaf, find_advisory_leaf, find_run_leaf
from pipeline.ledger.tlog.merkle import Frontier, leaf_hash
from pipeline.ledger.witnessed import HeldLog, compare_held
from pipeline.settings import read_settings
from pipeline.storage.checksums import sums_of
from pipeline.storage.reader import RunReader
from pipeline.storage.store_logs import StoreLogs

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
HeldFile = Annotated[
    Path,
    typer.Option(
        "--held",
        exists=True,
        dir_okay=False,
        readable=True,
        help="Checkpoints that were printed earlier.",
    ),
]


def checkpoint(key: Keys = None) -> None:
    """Print the checkpoints of all logs of all epochs: the one file to hand out."""
    logs = open_logs(read_settings(), key)
    opened = list(logs.open_all())
    if not opened:
        message = f"The store {logs.root} has no log yet: there is no checkpoint to hand out."
        raise NotFoundError(message)
    print_bytes(write_held(reader.note for reader in opened))
    leaves = sum(reader.size for reader in opened)
    note(f"{len(opened)} logs with {leaves:,} leaves")


def verify(held: HeldFile, key: Keys = None, as_json: AsJson = False) -> None:
    """Prove that every log still begins with what was held; exit 5 where one does not.

    Each leaf that was held is read and hashed again. Newer leaves are not read: rmos audit run
    reads them all.
    """
    kept = read_held(held.read_bytes(), str(held))
    logs = open_logs(read_settings(), key)
    leaves = sum(each.checkpoint.size for each in kept)
    with progress_bar("reading leaves", leaves) as advance:
        found = list(compare_held(logs, kept, advance))
    not_held = sorted(logs.by_origin().keys() - {each.origin for each in found})
    faults = sum(each.fault is not None for each in found)
    if as_json:
        compared = [{**asdict(each), "ok": each.fault is None} for each in found]
        print_json({"logs": compared, "not_held": not_held, "ok": not faults})
    else:
        _tell(logs, found)
        _tell_trust(str(held), found, not_held, given=bool(key))
    if faults:
        raise typer.Exit(IntegrityError.exit_status)


def _tell(logs: StoreLogs, found: Iterable[HeldLog]) -> None:
    own = f"rmos/{logs.store_id}/"
    print_table(
        ("log", "held", "now", "result"),
        [
            (
                each.origin.removeprefix(own),
                each.held_size,
                "-" if each.size is None else each.size,
                each.fault or "begins with what was held",
            )
            for each in found
        ],
    )


def _tell_trust(name: str, found: list[HeldLog], not_held: list[str], *, given: bool) -> None:
    good = sum(each.fault is None for each in found)
    note(f"{good} of {len(found)} logs begin with what was held.")
    newer = sum((each.size or 0) - each.held_size for each in found if each.fault is None)
    if newer:
        note(f"{newer:,} leaves that are newer than what was held were not read.")
    if not_held:
        note(f"Not in {name}, so hold them from now on: {len(not_held)} more.")
    if not given:
        note(
            "Signatures were checked with the store's own key: the proof rests on nobody having "
            f"changed {name} since. Give --key to rest it on a key of your own too.",
        )


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
    settings = read_settings()
    logs = open_logs(settings, key)
    with closing(RunReader(settings.data_dir)) as reader:
        found = dict(_leaves(reader, logs, run_id))
    if as_json:
        print_json({"run_id": run_id, "proofs": [_as_json(each) for each in found.values()]})
        return
    if advisory not in found:
        message = f"ADVISORY_NOT_FOUND: The run {run_id} has no advisory {advisory!r}."
        raise NotFoundError(message)
    wanted = found[advisory]
    content = wanted.leaf.encode() if leaf else bytes(wanted.reader.prove(wanted.index))
    print_bytes(content)
    note(f"leaf {wanted.index} of {wanted.reader.checkpoint.origin}")


def _leaves(
    reader: RunReader, logs: StoreLogs, run_id: str
) -> Iterator[tuple[str | None, FoundLeaf]]:
    """Yield the leaf of a run under None, then those of its advisories under their ids."""
    found = find_run(reader, logs, run_id)
    yield None, find_run_leaf(logs, found.run)
    for link in found.links:
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


def sums(
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

    Exit 5, after the lines, where an artifact or a link is not what the ledger says.
    """
    if root and date is not None:
        message = "--root is over the whole store: give no DATE with it."
        raise InputError(message)
    logs = open_logs(read_settings(), key)
    day = None if date is None else f"{date:%Y-%m-%d}"
    tree = Frontier()
    for line in sums_of(logs, day):
        tree.append(leaf_hash(line.encode()))
        if as_json:
            sha256, _, path = line.partition("  ")
            print_json({"path": path, "sha256": sha256})
        elif not root:
            print_text(line, at_once=False)
    store_root = tree.root().hex() if day is None else None
    if as_json:
        print_json({"summary": {"lines": tree.size, "store_root": store_root}})
    elif root:
        print_text(store_root)
    else:
        whole = f"; store root {store_root}" if store_root else ""
        note(f"{tree.size:,} files{whole}")
