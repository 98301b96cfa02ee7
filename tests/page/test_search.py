"""One box for everything that has a name."""

import sqlite3
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import pytest

from pipeline.page.search import _of_leaf
from pipeline.storage.index.named import BY_ADVISORY, by_hash
from pipeline.storage.index.run_index import INDEX_FILE
from tests.builders import GCODE, advisory_request, attachment, red_request, run_request, sha256
from tests.evidence.proven_stores import proven_store
from tests.ledger.ledgers import KEYS
from tests.page.conftest import Site, site_over

DXF = b"0\nSECTION\n"


async def found(site: Site, text: str) -> str:
    """Return where one match leads."""
    answer = await site.get(f"/search?q={quote(text)}")
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


async def test_every_page_has_the_box(site: Site) -> None:
    form = (await site.page("/")).one("form", role="search")
    assert (form.attributes["action"], form.attributes["method"]) == ("/search", "get")
    assert form.one("label").attributes["for"] == form.one("input").attributes["id"]


async def test_one_match_leads_to_its_page(site: Site) -> None:
    site.api.add_runs(
        run_request(run_id="run_1", attachments=[attachment(DXF)]),
        red_request(run_id="run_2", outputs={"gcode_text": "G1 X9\n"}),
    )
    advisory = advisory_request(run_id="run_2", advisory_id="adv_7")
    site.api.add_advisories(advisory)
    row = (await site.api.get("/run_1")).json()
    artifact = sha256((await site.api.get("/run_1/download")).content)
    for name in (
        "run_1",
        artifact,
        row["hashes"]["feasibility_sha256"],
        sha256(GCODE),
        sha256(DXF),
    ):
        assert await found(site, name) == "/run/run_1", name
        assert await found(site, f"  {name} ") == "/run/run_1"
    assert await found(site, artifact.upper()) == "/run/run_1"
    for name in ("adv_7", sha256(str(advisory["content_text"]))):
        assert await found(site, name) == "/run/run_2"


async def test_several_matches_are_listed(site: Site) -> None:
    site.api.add_runs(*(run_request(run_id=f"run_{number}") for number in range(3)))
    page = await site.page(f"/search?q={sha256(GCODE)}")
    links = [each.attributes["href"] for each in page.one("ul", class_="matches").all("a")]
    assert links == ["/run/run_0", "/run/run_1", "/run/run_2"]
    ask = page.one("main").words
    assert "May a file with this SHA-256 be cut?" in ask


@pytest.mark.parametrize("text", ["nothing", "0" * 64, "a/b", "a/0/x", "<b>x</b>", "x" * 9000, "é"])
async def test_no_match_is_said(site: Site, text: str) -> None:
    page = await site.page(f"/search?q={quote(text)}", 404)
    assert page.one("h1").words == "Nothing has this name"
    assert list(page.one("main").all("b")) == []


async def test_nothing_asked_is_the_form_alone(site: Site) -> None:
    assert (await site.page("/search")).one("h1").words == "Search"


async def test_a_record_leads_to_what_it_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.storage.ledger_key.verifier_keys", lambda *_: KEYS)
    async with site_over(proven_store(tmp_path / "store")) as site:
        assert await found(site, "rmos.runs.requests/0/1") == "/run/saw_red"
        conflict = await site.page("/search?q=rmos.runs.requests/0/3")
        links = [each.attributes["href"] for each in conflict.one("ul", class_="matches").all("a")]
        assert links == ["/dead-letters?source=rmos.runs.requests/0/3", "/run/saw_1"]
        assert "was refused: another request has this id" in conflict.one("main").words
        assert await found(site, "rmos.advisories.requests/0/1") == "/run/saw_red"
        letter = "rmos.runs.dead-letters/0/12"
        assert await found(site, letter) == f"/dead-letters/{letter}"
        await site.page("/search?q=rmos.runs.requests/0/99", 404)
        await site.page("/search?q=rmos.runs.requests/9/0", 404)


async def test_a_refused_program_leads_to_who_refuses_it(site: Site) -> None:
    site.api.add_runs(red_request(run_id="run_red"))
    page = await site.page(f"/search?q={sha256(GCODE)}")
    assert page.one("ul", class_="matches").words == "a program that the run run_red refuses"


@pytest.mark.parametrize(
    ("kind", "links"),
    [
        ("rejected", ["/dead-letters?source=a/0/1"]),
        ("advisory", [None]),
        ("conflict", ["/dead-letters?source=a/0/1", "/run/run_9"]),
    ],
)
async def test_a_record_that_made_no_run_is_not_said_to_be_one(
    kind: str, links: list[str | None], site: Site
) -> None:
    leaf = SimpleNamespace(kind=kind, run_id="run_9", code=None)
    matches = list(_of_leaf(site.api.deps.reader, leaf, "a/0/1", "leaf 0"))  # type: ignore[arg-type]
    assert [each.path for each in matches] == links
    assert not any(each.is_it for each in matches if each.path)


async def test_without_the_key_of_the_ledger_a_record_is_not_looked_for(site: Site) -> None:
    page = await site.page("/search?q=rmos.runs.requests/0/1", 503)
    assert "does not have the public key" in page.one("main").words


@pytest.mark.parametrize("query", [by_hash("sqlite"), str(BY_ADVISORY)])
async def test_no_name_is_looked_for_in_all_rows(site: Site, query: str) -> None:
    site.api.add_runs(run_request())
    with sqlite3.connect(site.api.root / INDEX_FILE) as connection:
        plan = connection.execute(f"EXPLAIN QUERY PLAN {query}", {"text": "0" * 64})
        steps = [row[3] for row in plan]
    assert any(step.startswith("SEARCH") for step in steps)
    # One row for each time of arrival.
    harmless = {"SCAN CONSTANT ROW", "SCAN parts"}
    assert {step for step in steps if step.startswith("SCAN")} <= harmless
