"""The documentation of the API: every route, answer and shape of its document is on the page."""

from functools import cache
from typing import Any

from pipeline.api.application import openapi_document
from pipeline.page.api_docs import example_of, operations_of
from tests.page.conftest import Site


@cache
def document() -> dict[str, Any]:
    return openapi_document("/")


async def test_the_page_has_every_route_answer_and_shape(site: Site) -> None:
    page = await site.page("/docs")
    for method, path, operation in operations_of(document()):
        section = page.one("section", id=operation["operationId"])
        assert f"{method} {path}" in section.one("h2").words
        for found in operation.get("parameters", []):
            assert found["name"] in section.words
        sent = operation.get("requestBody", {})
        for status, answer in operation["responses"].items():
            assert f"{status} {answer['description']}" in section.words
        for body in (sent, *operation["responses"].values()):
            for content in body.get("content", {}).values():
                assert example_of(content) in section.text
    shapes = document()["components"]["schemas"]
    assert {f"shape-{name}" for name in shapes} <= {
        section.attributes.get("id") for section in page.all("section")
    }
    assert "cursor" in page.one("section", id="list_runs").words


async def test_each_link_of_the_page_leads_to_a_place_on_it(site: Site) -> None:
    page = await site.page("/docs")
    ids = [each.attributes["id"] for each in page.all() if "id" in each.attributes]
    assert len(ids) == len(set(ids))
    wanted = {
        (link.attributes["href"] or "")[1:]
        for link in page.all("a")
        if (link.attributes["href"] or "").startswith("#")
    }
    assert wanted <= set(ids)
    assert len(wanted) > len(document()["paths"])


def test_the_operations_are_those_of_the_document() -> None:
    wanted = [
        (method.upper(), path)
        for path, methods in document()["paths"].items()
        for method in methods
    ]
    assert [(method, path) for method, path, _ in operations_of(document())] == wanted
