"""The list of runs as people see it."""

from pathlib import Path

from fastapi.routing import APIRoute

from pipeline.page.pages import pages
from tests.builders import run_request
from tests.page.conftest import Site

RED = {"risk_level": "RED", "block_reason": "rim speed 67 m/s is above 50"}


async def test_a_filter_without_a_field_is_shown_and_can_be_removed(site: Site) -> None:
    site.api.add_runs(run_request())
    page = await site.page(f"/?gcode_sha256={'0' * 64}&status=OK")
    link = page.one("section", id="runs").one("a", id="without-gcode_sha256")
    assert link.attributes["href"] == "/?status=OK"
    assert "0" * 64 in page.one("section", id="runs").words
    today = next(each for each in page.all("a") if each.words == "Blocked today")
    assert len((await site.page(str(today.attributes["href"]))).one("main").words) > 0


async def test_an_empty_store_says_so(site: Site) -> None:
    page = await site.page("/")
    assert page.one("p", class_="empty").words == "No run is stored yet."


async def test_the_newest_run_is_first_and_leads_to_its_page(site: Site) -> None:
    site.api.add_runs(
        run_request(run_id="run_1", created_at_utc="2026-03-01T08:00:00Z"),
        run_request(run_id="run_2", created_at_utc="2026-03-02T08:00:00Z", feasibility=RED),
    )
    page = await site.page("/")
    first, second = list(page.one("tbody").all("tr"))
    assert "▲ RED BLOCKED run_2 2026-03-02 08:00:00 UTC" in first.words
    assert "rim speed 67 m/s is above 50" in first.words
    assert first.one("a").attributes["href"] == "/run/run_2"
    assert "● GREEN OK run_1" in second.words


async def test_a_code_of_ours_is_explained_to_people(site: Site) -> None:
    site.api.add_runs(run_request(run_id="run_1", feasibility={"score": 1}))
    meaning = "RISK_UNKNOWN: no risk_level is in decision, feasibility"
    (row,) = (await site.page("/")).one("tbody").all("tr")
    assert meaning in row.words
    assert meaning in (await site.page("/run/run_1")).one("p", class_="prose").words


def test_the_document_names_every_page() -> None:
    text = Path("docs/http-api.md").read_text(encoding="utf-8")
    section = text.partition("\n## Pages\n")[2].partition("\n## ")[0]
    routers = (*pages().routers, *pages().open_routers)
    paths = {route.path for each in routers for route in each.routes if isinstance(route, APIRoute)}
    assert len(paths) > 20
    missing = [
        path for path in paths if path.replace(":path", "").rpartition("/")[2] not in section
    ]
    assert missing == []
