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


async def test_the_document_shows_where_the_api_is_and_what_token_it_takes(
    tmp_path: Path,
) -> None:
    async with api_over(tmp_path / "store") as api:
        document = (await api.http.get("/openapi.json")).json()
    assert document["servers"] == [{"url": "/"}]
    (scheme,) = document["components"]["securitySchemes"].values()
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    assert document["security"] == [{"token": []}, {}]
    open_paths = {
        path
        for path, methods in document["paths"].items()
        for operation in methods.values()
        if operation.get("security") == []
    }
    assert open_paths == {"/health/live", "/health/ready"}


async def test_the_id_of_an_operation_makes_the_name_of_a_method(tmp_path: Path) -> None:
    async with api_over(tmp_path / "store") as api:
        document = (await api.http.get("/openapi.json")).json()
    named = {
        operation["operationId"]: f"{method} {path.removeprefix('/api/rmos/runs')}"
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert named == {
        "list_runs": "get ",
        "submit_run": "post ",
        "diff_runs": "get /diff",
        "get_run": "get /{run_id}",
        "download_run": "get /{run_id}/download",
        "get_toolpath": "get /{run_id}/toolpath",
        "attach_advisory": "post /{run_id}/attach-advisory",
        "list_advisories": "get /{run_id}/advisories",
        "list_attachments": "get /{run_id}/attachments",
        "verify_attachments": "get /{run_id}/attachments/verify",
        "download_attachment": "get /{run_id}/attachments/{sha256}",
        "download_evidence": "get /{run_id}/evidence",
        "upload_attachment": "put /attachments/{sha256}",
        "get_liveness": "get /health/live",
        "get_readiness": "get /health/ready",
        "get_metrics": "get /metrics",
    }
