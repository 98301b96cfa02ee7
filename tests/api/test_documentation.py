"""The OpenAPI document: every body that comes or goes is shown by an example."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.api.conftest import api_over


def contents(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every described content, with where it stands."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            parts = {"body": operation.get("requestBody", {}), **operation["responses"]}
            for name, part in parts.items():
                for mime, content in part.get("content", {}).items():
                    yield f"{method.upper()} {path} {name} {mime}", content


async def test_every_content_has_an_example(tmp_path: Path) -> None:
    async with api_over(tmp_path / "store") as api:
        document = (await api.http.get("/openapi.json")).json()
    found = dict(contents(document))
    assert len(found) > 40
    without = [
        where
        for where, content in found.items()
        if not content.keys() & {"example", "examples"}
        and not {"example", "examples"} & content.get("schema", {}).keys()
    ]
    assert without == []


async def test_a_download_is_described_as_one_object(tmp_path: Path) -> None:
    async with api_over(tmp_path / "store") as api:
        document = (await api.http.get("/openapi.json")).json()
    download = document["paths"]["/api/rmos/runs/{run_id}/download"]["get"]
    assert list(download["responses"]["200"]["content"]) == ["application/json"]
