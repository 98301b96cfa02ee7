"""`rmos schemas`: the contracts as files, for code generators and validators."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.views.terminal import print_text
from pipeline.errors import input_faults
from pipeline.settings import Settings, read_settings

ASYNCAPI_FILE = "asyncapi.json"
OPENAPI_FILE = "openapi.json"

app = typer.Typer(no_args_is_help=True)


# With one command alone, typer would leave its name out of the command line.
@app.callback()
def _group() -> None:
    pass


@app.command()
def export(
    folder: Annotated[
        Path, typer.Option("--to", metavar="DIR", help="Folder; it is made if it is missing.")
    ] = Path("rmos-schemas"),
) -> None:
    """Write every JSON Schema, asyncapi.json and openapi.json; print the paths."""
    from schemas.export import write_schemas

    settings = read_settings()
    with input_faults(f"The schemas cannot be written to {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        paths = [*write_schemas(folder), *_write_documents(folder, settings)]
    for path in paths:
        print_text(path)


def _write_documents(folder: Path, settings: Settings) -> Iterator[Path]:
    from pipeline.app.asyncapi import asyncapi_document

    documents = {ASYNCAPI_FILE: asyncapi_document(settings), OPENAPI_FILE: _openapi(settings)}
    for name, document in documents.items():
        path = folder / name
        text = json.dumps(document, ensure_ascii=False, indent=2)
        path.write_text(f"{text}\n", encoding="utf-8")
        yield path


def _openapi(settings: Settings) -> dict[str, Any]:
    from pipeline.api.application import openapi_document

    host = f"[{settings.api_host}]" if ":" in settings.api_host else settings.api_host
    return openapi_document(f"http://{host}:{settings.api_port}")
