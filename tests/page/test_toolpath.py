"""The toolpath on the page of a run: drawn only where the program may be cut."""

import json
from pathlib import Path

import pytest

from pipeline.page import run
from tests.api.conftest import tokens_of
from tests.builders import attachment_ref, red_request, router_request, run_request
from tests.page.conftest import Element, Site, site_over

PROGRAM = b"G21 G90\nG0 X0 Y0 Z5\nG1 X10 F600\nM30\n"


def figures(page: Element) -> list[str | None]:
    return [each.attributes["data-toolpath"] for each in page.all("figure")]


async def test_the_picture_and_the_moves_are_those_of_the_run(site: Site) -> None:
    site.api.add_runs(run_request(run_id="run_1"))
    page = await site.page("/run/run_1")
    assert figures(page) == ["/run/run_1/toolpath.json"]
    image = page.one("figure").one("img")
    picture = await site.get(image.attributes["src"] or "")
    assert picture.headers["content-type"] == "image/svg+xml"
    assert picture.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    assert b"<title>" in picture.content
    moves = await site.get("/run/run_1/toolpath.json")
    assert moves.content == (await site.api.get("/run_1/toolpath")).content
    assert json.loads(moves.content)["paths"]
    known = {"If-None-Match": moves.headers["etag"]}
    assert (await site.get("/run/run_1/toolpath.json", **known)).status_code == 304


def facts(page: Element) -> dict[str, str]:
    names = page.one("div", class_="facts-of-program").one("dl")
    words = [each.words for each in names.children if isinstance(each, Element)]
    return dict(zip(words[::2], words[1::2], strict=True))


async def test_what_is_known_of_a_program_is_on_the_page_itself(site: Site) -> None:
    inches = "G20 G90 F10\nT3 M6\nS9000 M3\nG0 X0 Y0 Z0\nG1 X2\nG28\nM30\n"
    site.api.add_runs(
        run_request(run_id="run_1"),
        run_request(run_id="inch", outputs={"gcode_text": inches}),
        run_request(run_id="none", outputs={"gcode_text": "G28\nM30\n"}),
    )
    assert facts(await site.page("/run/run_1")) == {
        "Size": "94.00 by 0.00 by 8.00 mm (X by Y by Z)",
        "Lines": "12",
        "Moves": "4, an arc counted by its chords",
        "Not drawn": "2 of the moves: the program has not said from or to where",
        "At feed rate": "102.0 mm",
        "Time": "0.1 minutes at feed rate",
        "Rapid": "0.0 mm",
        "Tools": "none named",
        "Feed rates": "300.0 to 1,200.0 mm/min",
        "Spindle": "18,000 rpm",
    }
    page = await site.page("/run/inch")
    found = facts(page)
    assert found["Size"].startswith("50.80 by 0.00 by 0.00 mm, 2.000 by 0.000 by 0.000 in")
    assert found["At feed rate"] == "50.8 mm, 2.00 in"
    # One feed rate is no range.
    assert found["Feed rates"] == "10.00 in/min, 254.0 mm/min"
    assert (found["Tools"], found["Spindle"]) == ("3", "9,000 rpm")
    for run_id in ("inch", "none"):
        shown = (await site.page(f"/run/{run_id}")).one("div", class_="facts-of-program")
        assert "G28 goes to a place of the machine" in shown.one("ul").words
    compared = await site.page("/compare?a=run_1&b=inch")
    assert len(list(compared.all("div", class_="facts-of-program"))) == 2


async def test_the_verdict_does_not_wait_for_a_long_program(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "AT_ONCE_SECONDS", 0)
    site.api.add_runs(run_request(run_id="run_1"))
    page = await site.page("/run/run_1")
    assert "MAY CUT" in page.words
    place = page.one("div", id="program-facts")
    assert place.attributes["hx-get"] == "/run/run_1"
    assert "reload this page for its size" in place.words
    htmx = {"HX-Request": "true", "HX-Target": "program-facts"}
    page = await site.page("/run/run_1", **htmx)
    assert facts(page)["Lines"] == "12"
    # What cannot be drawn is not asked for again and again.
    assert "hx-get" not in page.one("div", id="program-facts").attributes


async def test_nothing_is_drawn_of_a_run_that_may_not_be_cut(site: Site) -> None:
    claimed = {"outputs": None, "hashes": {"gcode_sha256": "a" * 64}}
    missing = attachment_ref(PROGRAM, kind="gcode", filename="part.nc")
    site.api.add_runs(
        red_request(run_id="blocked"),
        router_request(run_id="claimed", **claimed),
        router_request(run_id="missing", outputs=None, attachments=[missing]),
    )
    for run_id in ("blocked", "claimed", "missing"):
        assert figures(await site.page(f"/run/{run_id}")) == []
        for name in ("toolpath.json", "toolpath.svg"):
            assert (await site.get(f"/run/{run_id}/{name}")).status_code == 404
    assert figures(await site.page("/compare?a=blocked&b=claimed")) == []


async def test_two_ways_are_shown_beside_each_other(site: Site) -> None:
    site.api.add_runs(run_request(run_id="run_1"), router_request(run_id="run_2"))
    page = await site.page("/compare?a=run_1&b=run_2")
    assert figures(page) == ["/run/run_1/toolpath.json", "/run/run_2/toolpath.json"]


async def test_a_cookie_opens_the_moves_of_a_page(tmp_path: Path) -> None:
    tokens = tokens_of(tmp_path, ("ana", "read", "secret"))
    async with site_over(tmp_path / "store", tokens=tokens) as site:
        site.api.add_runs(run_request(run_id="run_1"))
        for name in ("toolpath.json", "toolpath.svg"):
            path = f"/run/run_1/{name}"
            assert (await site.get(path)).status_code == 303
            found = await site.get(path, cookie="rmos_token=secret")
            assert found.status_code == 200
        refused = await site.api.get("/run_1/toolpath", cookie="rmos_token=secret")
        assert refused.status_code == 401
