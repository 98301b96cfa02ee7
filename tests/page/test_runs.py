"""The list of runs as people see it."""

from tests.builders import run_request
from tests.page.conftest import Site

RED = {"risk_level": "RED", "block_reason": "rim speed 67 m/s is above 50"}


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
