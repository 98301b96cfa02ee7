"""Hostile text in every field of a run and an advisory: it is shown, nothing runs or loads."""

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import NewPage, Site, settle

if TYPE_CHECKING:
    from playwright.sync_api import Browser

FOUND = """
() => {
  for (const each of document.querySelectorAll("details")) each.open = true;
  const main = document.querySelector("main");
  const all = (selector) => [...main.querySelectorAll(selector)];
  const acts = (each) => each.getAttributeNames().some((name) => name.startsWith("on"));
  return {
    text: main.innerText,
    foreign: all("*").filter((each) => acts(each) || each.matches("script, style, svg, iframe"))
      .map((each) => each.outerHTML),
    links: all("a").map((each) => each.href),
    images: all("img").map((each) => each.src),
  };
}
"""
pytestmark = pytest.mark.browser


@pytest.mark.parametrize("scripts", [True, False])
def test_hostile_text_is_only_text(site: Site, new_page: NewPage, scripts: bool) -> None:
    page = new_page(java_script_enabled=scripts)
    for path in ("/", "/run/hostile", "/run/hostile/verified", "/run/large"):
        page.goto(path)
        if scripts:
            settle(page)
        # Playwright reads a page whose own scripts are off.
        found = page.evaluate(FOUND)
        if path != "/":
            assert "<script>alert(1)</script>" in found["text"]
            assert "‹U+202E›gnp.exe" in found["text"]
        assert "\u202e" not in found["text"]
        assert found["foreign"] == []
        assert {each.partition(":")[0] for each in found["links"]} <= {"http", "https"}
        assert all(each.startswith(f"{site.address}/run/") for each in found["images"])


def test_a_picture_by_a_producer_runs_nothing_even_by_itself(
    browser: "Browser", site: Site
) -> None:
    # Not watched: that the browser reports what it refuses is right here.
    with closing(browser.new_context()) as context:
        page = context.new_page()
        happened: list[str] = []
        page.on("dialog", lambda dialog: (happened.append(dialog.message), dialog.dismiss()))
        page.on("requestfinished", lambda request: happened.append(request.url))
        page.on(
            "requestfailed",
            lambda request: happened.append(f"{request.url} {request.failure}".lower()),
        )
        answer = page.goto(f"{site.address}/run/hostile/preview.svg")
        assert answer is not None
        assert answer.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
        assert page.locator("svg").get_attribute("onload") == "alert(5)"
        # Refused by the policy before it was sent.
        refused = "https://elsewhere.example/z csp"
        assert set(happened) == {f"{site.address}/run/hostile/preview.svg", refused}
