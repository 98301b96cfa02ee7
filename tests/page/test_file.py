"""May this file be cut? Answered in words, and never yes on doubt."""

from urllib.parse import quote

import pytest

from tests.builders import GCODE, red_request, run_request, sha256
from tests.page.conftest import Element, Site


def verdict(page: Element) -> str:
    return page.one("p", class_="verdict").words


async def test_without_a_hash_the_page_asks_and_says_how_to_make_one(site: Site) -> None:
    page = await site.page("/file")
    assert page.one("h1").words == "May this file be cut?"
    assert "sha256sum part.nc" in page.text
    assert list(page.all("p", class_="verdict")) == []
    # The part that needs scripts is hidden until they run.
    (form,) = page.one("main").all("form")
    assert (form.attributes["method"], form.attributes["action"]) == ("get", "/file")
    (drop,) = (each for each in form.all("div") if "data-drop" in each.attributes)
    assert "hidden" in drop.attributes
    # The file itself has no name, so no browser sends it.
    assert "name" not in drop.one("input").attributes


async def test_exactly_the_bytes_of_a_run_may_be_cut(site: Site) -> None:
    site.api.add_runs(run_request(run_id="run_1"))
    # As sha256sum prints it, too.
    certutil = (
        f"SHA256 hash of part.nc:\r\n{sha256(GCODE)}\r\n"
        "CertUtil: -hashfile command completed successfully.\r\n"
    )
    powershell = f"Algorithm Hash Path\n---- ---- ----\nSHA256 {sha256(GCODE).upper()} C:\\p.nc"
    for text in (sha256(GCODE), f" {sha256(GCODE).upper()}  part.nc", certutil, powershell):
        page = await site.page(f"/file?sha256={quote(text)}")
        assert verdict(page).startswith("✔ MAY CUT: these bytes are the program of the run run_1")
        assert page.one("tbody").one("a").attributes["href"] == "/run/run_1"


@pytest.mark.parametrize("changed", [GCODE + "\n", GCODE.replace("\n", "\r\n"), GCODE[:-1]])
async def test_other_bytes_are_known_to_no_run(site: Site, changed: str) -> None:
    site.api.add_runs(run_request(run_id="run_1"))
    page = await site.page(f"/file?sha256={sha256(changed)}")
    assert verdict(page) == "✖ DO NOT CUT: no run knows these bytes."
    assert list(page.all("table")) == []


async def test_a_blocked_twin_refuses_the_program(site: Site) -> None:
    site.api.add_runs(run_request(run_id="run_1"), red_request(run_id="run_2"))
    page = await site.page(f"/file?sha256={sha256(GCODE)}")
    assert verdict(page).startswith("✖ DO NOT CUT: rim speed above the blade's limit")
    assert {each.words for each in page.one("tbody").all("a")} == {"run_1", "run_2"}


@pytest.mark.parametrize(
    "text", ["", "x", "0" * 63, "0" * 65, "<script>", f"{'0' * 64} {'1' * 64}"]
)
async def test_what_is_no_hash_is_no_yes(site: Site, text: str) -> None:
    page = await site.page(f"/file?sha256={quote(text)}%20", 422)
    assert "Without it: do not cut." in page.one("main").words
