"""Errors are pages to people, and stay JSON to programs and on the routes of the API."""

from pathlib import Path
from unittest.mock import patch

import pytest

from tests.api.conftest import tokens_of
from tests.builders import run_request
from tests.page.conftest import Site, site_over


@pytest.mark.parametrize("path", ["/nothing", "/run", "/run/a%2Fb", "/audits/a/b/c", "/static/x/y"])
async def test_what_is_not_there_is_a_page(path: str, site: Site) -> None:
    page = await site.page(path, 404)
    assert page.one("nav", **{"aria-label": "Pages"})
    as_json = await site.api.http.get(path, headers={"accept": "application/json"})
    assert (as_json.status_code, as_json.json()["error"]) == (404, "NOT_FOUND")


async def test_a_method_that_no_page_has_is_a_page_and_names_those_it_has(site: Site) -> None:
    answer = await site.api.http.post("/flow", headers={"accept": "text/html"})
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"


async def test_what_nobody_expected_is_a_page_that_says_nothing_of_it(site: Site) -> None:
    with patch("pipeline.page.runs.runs_view", side_effect=ZeroDivisionError("secret")):
        page = await site.page("/", 500)
    assert page.one("h1").words == "The server failed"
    assert "secret" not in page.text


async def test_too_many_requests_are_a_page(tmp_path: Path) -> None:
    async with site_over(tmp_path / "store", api_requests=1, api_client_requests=1) as site:
        with site.api.app._limit.slot_for("127.0.0.1"):  # as if one were under way
            page = await site.page("/", 503)
            program = await site.api.get()
    assert page.one("h1").words == "Too many ask at a time"
    assert program.json()["error"] == "TOO_BUSY"


async def test_routes_of_the_api_answer_as_ever(site: Site) -> None:
    for path in ("/api/rmos/runs/nothing", "/runs/nothing", "/api/nothing", "/health/nothing"):
        answer = await site.get(path)
        assert answer.headers["content-type"] == "application/json", path


async def test_a_path_without_a_page_asks_to_sign_in_and_the_cookie_opens_nothing(
    tmp_path: Path,
) -> None:
    tokens = tokens_of(tmp_path, ("ana", "read", "secret"))
    async with site_over(tmp_path / "store", tokens=tokens) as site:
        site.api.add_runs(run_request(run_id="run_1"))
        asked = await site.get("/nothing")
        assert (asked.status_code, asked.headers["location"]) == (303, "/sign-in?next=%2Fnothing")
        known = {"cookie": "rmos_token=secret"}
        assert (await site.page("/nothing", 404, **known)).one(
            "h1"
        ).words == "There is nothing here"
        for path in ("/api/rmos/runs/run_1", "/runs/run_1", "/openapi.json", "/metrics"):
            assert (await site.get(path, **known)).status_code == 401, path
