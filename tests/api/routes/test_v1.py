"""v1 mode over HTTP: v1's answers from the rows of its file, 501 for what v1 had not."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipeline.api.application import ALIAS, create_api, create_legacy_api
from pipeline.api.dependencies import LegacyDependencies, OneByOne
from pipeline.api.http.tokens import Tokens
from pipeline.api.openapi import document
from pipeline.api.publishing import LazyPublisher
from pipeline.broker.publisher import RunPublisher
from pipeline.errors import BrokerError
from pipeline.legacy.v1.reader import V1Reader
from pipeline.legacy.v1.row import marked
from pipeline.legacy.v1_mode.outcome import judge_run_as_row
from pipeline.page.pages import legacy_pages
from pipeline.settings import read_settings
from tests.api.conftest import RUNS, api_over, tokens_of
from tests.builders import (
    attachment_ref,
    encode,
    incomplete_request,
    record,
    red_request,
    run_request,
)

V1_ROW = {
    "run_id": "run_v1",
    "created_at_utc": "2024-01-05T05:07:16.690677+00:00",
    "status": "OK",
    "event_type": "approval",
    "feasibility": {"score": 12345678901234567890123},
    "attachments": None,
}
JSON = {"content-type": "application/json"}


def row_of(request: dict[str, Any]) -> dict[str, Any]:
    verdict = judge_run_as_row(*record(request))
    return marked(verdict.row, verdict.mark)  # type: ignore[union-attr]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    rows = {
        "run_v1": V1_ROW,
        "run_a": row_of(
            run_request(
                run_id="run_a",
                created_at_utc="2025-01-01T00:00:00Z",
                machine_id="m1",
                attachments=[attachment_ref()],
            )
        ),
        "run_b": row_of(red_request(run_id="run_b", created_at_utc="2025-01-02T00:00:00Z")),
    }
    file = tmp_path / "runs.json"
    file.write_text(json.dumps(rows, indent=2, sort_keys=True))
    return file


@pytest.fixture
async def http(path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with served(path) as client:
        yield client


def deps_of(path: Path) -> LegacyDependencies:
    settings = read_settings(
        data_dir=path.parent / "gone", run_store_path=path, runs_v2_enabled=False
    )

    async def no_broker() -> None:
        message = "No Kafka broker answers at nowhere."
        raise BrokerError(message)

    async def no_holder(topic: str, partition: int, offset: int) -> None:
        """Know of nothing that holds a record up."""

    async def checks() -> dict[str, bool]:
        return {"broker answers": False}

    return LegacyDependencies(
        settings=settings,
        runs=LazyPublisher(lambda: RunPublisher(settings), no_broker, no_holder),
        lookup=OneByOne(2, "lookup"),
        checks=checks,
        reasons=tuple,
        reader=V1Reader(path),
    )


def served(path: Path, tokens: Tokens | None = None) -> httpx.AsyncClient:
    app = create_legacy_api(deps_of(path), tokens, legacy_pages())
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")


def damage(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new))


async def test_the_list_is_a_bare_array_of_v1s_summaries(http: httpx.AsyncClient) -> None:
    answer = await http.get(RUNS)
    assert [item["run_id"] for item in answer.json()] == ["run_b", "run_a", "run_v1"]
    assert set(answer.json()[0]) == {
        *("run_id", "created_at_utc", "event_type", "status", "workflow_session_id", "tool_id"),
        *("material_id", "machine_id", "workflow_mode", "request_hash", "toolpaths_hash"),
        *("gcode_hash", "notes"),
    }
    assert (await http.get(ALIAS)).content == answer.content


async def test_filters_are_exact_as_in_v1(http: httpx.AsyncClient) -> None:
    for query, found in (
        ({"status": "BLOCKED"}, ["run_b"]),
        ({"status": "blocked"}, []),
        ({"machine_id": "m1"}, ["run_a"]),
        ({"event_type": "approval", "machine_id": ""}, ["run_v1"]),
        ({"limit": "1"}, ["run_b"]),
        ({"mode": "", "status": "", "limit": "2"}, ["run_b", "run_a"]),
    ):
        answer = await http.get(RUNS, params=query)
        assert [item["run_id"] for item in answer.json()] == found, query


async def test_a_limit_that_v1_refused_is_refused(http: httpx.AsyncClient) -> None:
    for limit in ("0", "501", "x"):
        answer = await http.get(RUNS, params={"limit": limit})
        assert (answer.status_code, answer.json()["error"]) == (422, "INVALID_QUERY"), limit


async def test_a_filter_that_v1_has_not_is_not_passed_over(http: httpx.AsyncClient) -> None:
    unknown = ("mode", "tool_id_prefix", "risk_level", "gcode_sha256")
    for name in (*unknown, "date_from", "date_to", "cursor"):
        answer = await http.get(RUNS, params={name: "x"})
        assert (answer.status_code, answer.json()["error"]) == (501, "NOT_IN_V1"), name
        assert name in answer.json()["message"]


async def test_a_misspelt_filter_is_not_passed_over(http: httpx.AsyncClient) -> None:
    answer = await http.get(RUNS, params={"toolid": "x"})
    assert (answer.status_code, answer.json()["error"]) == (422, "INVALID_QUERY")
    assert answer.json()["message"].endswith("did you mean tool_id?")


async def test_a_run_is_shown_with_every_field_and_digit(http: httpx.AsyncClient) -> None:
    assert (await http.get(f"{RUNS}/run_v1")).json() == {**V1_ROW, "attachments": []}
    assert b"12345678901234567890123" in (await http.get(f"{RUNS}/run_v1")).content
    shown = (await http.get(f"{RUNS}/run_b")).json()
    assert (shown["status"], shown["gcode_hash"], len(shown)) == ("BLOCKED", None, 40)


@pytest.mark.parametrize("path_of", ["/{}", "/{}/attachments", "/diff?a=run_a&b={}"])
async def test_an_unknown_run_is_reported_as_v1_and_as_we_do(
    http: httpx.AsyncClient, path_of: str
) -> None:
    answer = await http.get(RUNS + path_of.format("run_x"))
    told = answer.json()
    assert (answer.status_code, told["error"]) == (404, "RUN_NOT_FOUND")
    assert (told["detail"], told["run_id"]) == ("Run run_x not found", "run_x")
    # What cannot be a run_id is not repeated.
    told = (await http.get(RUNS + path_of.format("-x"))).json()
    assert (told["detail"], "run_id" in told) == ("Run not found", False)


async def test_two_runs_are_compared_as_v1_did(http: httpx.AsyncClient) -> None:
    answer = await http.get(f"{RUNS}/diff", params={"a": "run_a", "b": "run_b"})
    assert answer.json()["diff_severity"] == "CRITICAL"
    assert "status" in answer.json()["changed_paths"]
    assert (await http.get(f"{RUNS}/diff", params={"a": "run_a"})).status_code == 422


async def test_attachments_are_listed(http: httpx.AsyncClient) -> None:
    told = (await http.get(f"{RUNS}/run_a/attachments")).json()
    sha = attachment_ref()["sha256"]
    assert (told["run_id"], told["count"]) == ("run_a", 1)
    assert told["attachments"] == [
        {**attachment_ref(), "download_url": f"{RUNS}/run_a/attachments/{sha}"}
    ]
    assert (await http.get(f"{RUNS}/run_v1/attachments")).json()["count"] == 0


async def test_a_row_that_cannot_be_read_breaks_no_list(path: Path) -> None:
    damage(path, "12345678901234567890123", "NaN")
    async with served(path) as http:
        assert [item["run_id"] for item in (await http.get(RUNS)).json()] == ["run_b", "run_a"]
        answer = await http.get(f"{RUNS}/run_v1")
        assert (answer.status_code, answer.json()["error"]) == (500, "ARTIFACT_CORRUPT")


async def test_a_file_that_is_cut_off_is_reported_without_its_path(path: Path) -> None:
    damage(path, "}", "")
    async with served(path) as http:
        answer = await http.get(RUNS)
    assert (answer.status_code, answer.json()["error"]) == (503, "STORE_UNAVAILABLE")
    assert str(path.parent) not in answer.text


def routes_of(app: Any) -> set[tuple[str, str]]:
    paths = document(app.app, "/")["paths"]
    return {(method.upper(), name) for name, methods in paths.items() for method in methods}


async def test_every_route_is_served_or_answers_501(path: Path, tmp_path: Path) -> None:
    """Also those that somebody adds to the other API: none is forgotten here."""
    async with api_over(tmp_path / "store") as other, served(path) as http:
        routes = routes_of(create_api(other.deps, None))
        assert routes == routes_of(create_legacy_api(deps_of(path), None))
        refused = set()
        for method, name in routes:
            url = name.format(run_id="run_a", sha256=attachment_ref()["sha256"], advisory_id="x")
            answer = await http.request(method, url)
            if answer.status_code == 501:
                assert answer.json()["error"] == "NOT_IN_V1"
                refused.add((method, name.removeprefix(RUNS)))
    assert refused == {
        ("GET", "/{run_id}/download"),
        ("GET", "/{run_id}/toolpath"),
        ("GET", "/{run_id}/evidence"),
        ("GET", "/{run_id}/advisories"),
        ("POST", "/{run_id}/attach-advisory"),
        ("GET", "/{run_id}/attachments/verify"),
        ("GET", "/{run_id}/attachments/{sha256}"),
        ("PUT", "/attachments/{sha256}"),
    }


async def test_a_record_cannot_be_changed_here_either(http: httpx.AsyncClient) -> None:
    for method in ("PATCH", "DELETE", "PUT"):
        answer = await http.request(method, f"{RUNS}/run_a", json={"meta_updates": {}})
        assert answer.status_code == 405
    assert (await http.patch(f"{RUNS}/run_a/meta", json={})).status_code == 404


async def test_a_request_is_judged_before_it_is_published(http: httpx.AsyncClient) -> None:
    bad = await http.post(RUNS, content=encode(incomplete_request()), headers=JSON)
    assert (bad.status_code, bad.json()["error"]) == (422, "INVALID_REQUEST")
    good = await http.post(RUNS, content=encode(run_request()), headers=JSON)
    assert (good.status_code, good.json()["error"]) == (503, "BROKER_UNAVAILABLE")


async def test_a_request_of_a_client_of_v1_is_published_too(http: httpx.AsyncClient) -> None:
    request = run_request()
    request["request_summary"] = request.pop("request")
    answer = await http.post(RUNS, content=encode(request), headers=JSON)
    assert (answer.status_code, answer.json()["error"]) == (503, "BROKER_UNAVAILABLE")


async def test_tokens_health_and_metrics_are_those_of_the_other_mode(
    path: Path, tmp_path: Path
) -> None:
    async with served(path, tokens_of(tmp_path / "tokens", ("cam", "read", "secret"))) as http:
        assert (await http.get(RUNS)).status_code == 401
        assert (await http.get("/health/live")).json() == {"live": True}
        assert (await http.get("/health/ready")).status_code == 503
    async with served(path) as http:
        assert "rmos_http_requests_total" in (await http.get("/metrics")).text


async def test_people_are_told_what_v1_mode_is(http: httpx.AsyncClient) -> None:
    page = await http.get("/", headers={"accept": "text/html"})
    assert "This server is in v1 mode" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    program = await http.get("/", headers={"accept": "application/json"})
    assert program.json()["runs"] == RUNS
    assert (await http.get("/run/run_a")).status_code == 404
