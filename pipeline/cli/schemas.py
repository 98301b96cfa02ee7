"""`rmos schemas`: the contracts as files, for those who generate code or validate by themselves."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pipeline.broker.asyncapi import asyncapi_document
from pipeline.cli.terminal import print_text
from pipeline.errors import InputError
from pipeline.settings import Settings, read_settings
from schemas.export import write_schemas

ASYNCAPI_FILE = "asyncapi.json"

app = typer.Typer(no_args_is_help=True, help="Write JSON Schemas and the AsyncAPI document.")


# With one command alone, typer would leave its name out of the command line.
@app.callback()
def _group() -> None:
    pass


@app.command()
def export(
    folder: Annotated[
        Path, typer.Option("--to", metavar="DIR", help="Folder, made where it is missing.")
    ] = Path("rmos-schemas"),
) -> None:
    """Write the JSON Schema of every message and file, and asyncapi.json; print the paths."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths = [*write_schemas(folder), _write_asyncapi(folder, read_settings())]
    except OSError as error:
        message = f"The schemas cannot be written to {folder}: {error.strerror}."
        raise InputError(message) from error
    for path in paths:
        print_text(path)


def _write_asyncapi(folder: Path, settings: Settings) -> Path:
    document = asyncapi_document(
        settings.prefix,
        replication=settings.replication,
        request_retention_ms=settings.request_retention_ms,
    )
    path = folder / ASYNCAPI_FILE
    path.write_text(json.dumps(document, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    return path
