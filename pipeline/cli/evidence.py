"""`rmos evidence`: the proof of one run, in one file for a reader who trusts nobody."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.ledger import HeldFile, Keys, TrustedFile, open_logs, read_trusted
from pipeline.cli.options import AsJson
from pipeline.cli.views.terminal import note, print_json, print_pairs
from pipeline.settings import read_settings

if TYPE_CHECKING:
    from pipeline.evidence.evidence import RunEvidence


def evidence(
    run_id: Annotated[str, typer.Argument(metavar="RUN_ID")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="New file; evidence-RUN_ID.zip if not given."),
    ] = None,
    trusted: TrustedFile = None,
    held: HeldFile = None,
    key: Keys = None,
    as_json: AsJson = False,
) -> None:
    """Write the evidence about a run: artifact, links, attachments, proofs, a page, a verifier.

    With --trusted, it also proves that each log still begins with the reader's checkpoint.
    """
    from pipeline.evidence.bundle import write_evidence
    from pipeline.evidence.gather import gather_evidence
    from pipeline.storage.reader import RunReader

    settings = read_settings()
    logs = open_logs(settings, key)
    path = trusted or held
    kept = (
        None
        if path is None
        else {each.checkpoint.origin: each.checkpoint for each in read_trusted(path)}
    )
    with closing(RunReader(settings.data_dir)) as reader:
        found = gather_evidence(reader, logs, run_id, kept)
        bundle = output or Path(f"evidence-{run_id}.zip")
        write_evidence(bundle, found, reader.attachments)
    if as_json:
        print_json(_document(bundle, found))
        return
    print_pairs(
        [
            ("file", bundle),
            ("size_bytes", f"{bundle.stat().st_size:,}"),
            ("links", len(found.files) - 1),
            ("attachments", len(found.included)),
            *((each.state, f"{each.sha256}  {each.kind}") for each in found.left_out),
            *(("key", key) for key in found.keys),
        ]
    )
    note("To check it, a reader needs the key or checkpoints from another source than this file.")
    for file in found.files:
        if kept is not None and file.consistency is None:
            note(f"{file.name}: no trusted checkpoint of {file.checkpoint.origin} was given.")


def _document(path: Path, found: "RunEvidence") -> dict[str, object]:
    return {
        "run_id": found.run_id,
        "file": str(path),
        "size_bytes": path.stat().st_size,
        "files": [file.path for file in found.files],
        "attachments": [
            {"sha256": each.sha256, "kind": each.kind, "state": each.state}
            for each in found.attachments
        ],
        "keys": [str(key) for key in found.keys],
    }
