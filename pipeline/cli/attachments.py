"""`rmos attachments`: put blobs into the store."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.options import AsNdjson
from pipeline.cli.views.terminal import note, print_json, print_text
from pipeline.disk.store_identity import read_store
from pipeline.errors import InputError
from pipeline.settings import read_settings

if TYPE_CHECKING:
    from pipeline.storage.attachments import AttachmentFiles, StoredBlob

app = typer.Typer(no_args_is_help=True, help="Put blobs into the store in RMOS_DATA_DIR.")


@app.callback()
def _group() -> None:
    """Stay a group, whatever the number of its commands."""


@app.command()
def put(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...")],
    as_json: AsNdjson = False,
) -> None:
    """Store files under their SHA-256, and print it; a blob that exists already is success."""
    from pipeline.storage.attachments import AttachmentFiles
    from pipeline.storage.reader import stored_answer

    root = read_settings().data_dir
    read_store(root)
    store = AttachmentFiles(root)
    created = 0
    for file in files:
        stored = _put(store, file)
        created += stored.created
        if as_json:
            print_json(stored_answer(stored))
        else:
            print_text(f"{stored.sha256}  {file}")
    if as_json:
        print_json({"summary": {"created": created, "exists": len(files) - created}})
    else:
        note(f"{created:,} created, {len(files) - created:,} there before")


def _put(store: "AttachmentFiles", file: Path) -> "StoredBlob":
    try:
        return store.put(file)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}.") from error
