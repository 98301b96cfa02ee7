"""`rmos schemas export` writes the contracts and names each file that it wrote."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.api.application import openapi_document
from pipeline.app.asyncapi import asyncapi_document
from pipeline.cli.schemas import app
from pipeline.errors import InputError
from pipeline.settings import Settings
from schemas.export import json_schemas


def test_export_writes_every_schema_and_names_it(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "here"
    result = CliRunner().invoke(app, ["export", "--to", str(folder)], catch_exceptions=False)
    assert result.exit_code == 0
    written = [Path(line) for line in result.stdout.splitlines()]
    assert sorted(written) == sorted(folder.iterdir())
    assert len(written) == len(json_schemas()) + 2
    assert json.loads((folder / "asyncapi.json").read_text()) == asyncapi_document(Settings())
    document = json.loads((folder / "openapi.json").read_text())
    assert document == openapi_document("http://127.0.0.1:8080")
    assert document["servers"] == [{"url": "http://127.0.0.1:8080"}]


def test_export_names_the_topics_of_the_prefix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RMOS_PREFIX", "shop")
    monkeypatch.setenv("RMOS_BOOTSTRAP_SERVERS", "k1.example:9094, k2.example:9094")
    monkeypatch.setenv("RMOS_SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("RMOS_SASL_MECHANISM", "PLAIN")
    monkeypatch.setenv("RMOS_API_HOST", "::1")
    CliRunner().invoke(app, ["export", "--to", str(tmp_path)], catch_exceptions=False)
    document = json.loads((tmp_path / "asyncapi.json").read_text())
    assert document["channels"]["runs.requests"]["address"] == "shop.runs.requests"
    security = [{"$ref": "#/components/securitySchemes/plain"}]
    assert document["servers"] == {
        f"broker_{number}": {
            "host": f"k{number}.example:9094",
            "protocol": "kafka-secure",
            "security": security,
        }
        for number in (1, 2)
    }
    document = json.loads((tmp_path / "openapi.json").read_text())
    assert document["servers"] == [{"url": "http://[::1]:8080"}]


def test_folder_that_cannot_be_made_is_the_callers_fault(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(InputError, match="cannot be written"):
        CliRunner().invoke(app, ["export", "--to", str(file)], catch_exceptions=False)
