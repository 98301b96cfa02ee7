"""Every page, wide, narrow and dark: no error, no report of the policy, axe-core finds nothing."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from fastapi.routing import APIRoute

from pipeline.page.pages import pages
from tests.browser.broker import LETTERS
from tests.browser.conftest import TOKEN, NewPage, Site, axe_violations, settle
from tests.browser.shop import AUDIT, ISLAND
from tests.builders import GCODE, sha256

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

PAGES = {
    "runs": "/",
    "runs of a filter": "/?status=BLOCKED&risk_level=RED",
    "no run": "/?mode=none",
    "not understood": "/?statsu=OK",
    "green": "/run/green",
    "yellow": "/run/yellow",
    "blocked": "/run/blocked",
    "damaged": "/run/damaged",
    "hostile": "/run/hostile",
    "large": "/run/large",
    "verified": "/run/rosette/verified",
    "unknown": "/run/nothing",
    "compared": "/compare?a=yellow&b=other",
    "compared with a blocked one": "/compare?a=blocked&b=hostile",
    "file": "/file",
    "file that nobody knows": f"/file?sha256={'0' * 64}",
    "file that is released": f"/file?sha256={sha256(GCODE)}",
    "found": f"/search?q={sha256(GCODE)}",
    "found nowhere": "/search?q=nothing",
    "nothing drawn": "/run/undrawn",
    "found several times": f"/search?q={sha256(ISLAND)}",
    "record": f"/search?q={LETTERS}/0/0",
    "audit": f"/audits/{AUDIT}",
    "no audit": "/audits/nothing",
    "flow that is paused": "/flow?paused=true",
    "letters of a code": "/dead-letters?code=INVALID_JSON",
    "letter that is hostile": f"/dead-letters/{LETTERS}/0/0",
    "letter of bytes": f"/dead-letters/{LETTERS}/0/1",
    "letter of a request": f"/dead-letters/{LETTERS}/0/2",
    "letter without a value": f"/dead-letters/{LETTERS}/0/3",
    "no letter": f"/dead-letters/{LETTERS}/0/99",
    "not a run_id": "/run/%00",
    "sign in": "/sign-in",
}
ELSEWHERE = {
    "signing in": ("guarded", "/sign-in?next=/flow"),
    "flow, while no broker answers": ("away", "/flow"),
    "letters, while no broker answers": ("away", "/dead-letters"),
    "letter, while no broker answers": ("away", f"/dead-letters/{LETTERS}/0/0"),
    "v1 mode": ("v1", "/"),
}
"""Pages of a server of its own."""

FILES = (
    "artifact",
    "evidence",
    "attachments/",
    "pictures/",
    "preview.svg",
    "toolpath.",
    "/static/",
    "sign-out",
    "/ledger/checkpoint",
    "advisories.json",
)
"""Parts of the paths at which something else than a page is."""

WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
ADDED_BY_SCRIPTS = ".turning, .steps, [data-overlay], [data-drop], [data-said]"
TEXT = """
(added) => {
  const copy = document.querySelector("main").cloneNode(true);
  // What time it is, and what a script adds.
  for (const each of copy.querySelectorAll(`time, ${added}`)) each.remove();
  const lines = copy.textContent.split("\\n").map((line) => line.trim().replace(/\\s+/g, " "));
  return lines.filter(Boolean);
}
"""
REACHABLE = """
() => {
  const all = "a[href], button, input, select, textarea, summary, [tabindex='0']";
  const seen = new Set();
  return [...document.querySelectorAll(all)]
    .filter((each) => each.type !== "hidden" && each.checkVisibility() && !each.disabled)
    .filter((each) => {
      // Of radio buttons of one name, Tab reaches one, and arrows the others.
      const again = each.type === "radio" && seen.has(each.name);
      seen.add(each.name);
      return !again;
    })
    .map((each, number) => {
      each.dataset.number = `${number} ${each.outerHTML.slice(0, 80)}`;
      return each.id || each.dataset.number;
    });
}
"""
TOO_WIDE = """
() => {
  const wide = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= wide) return [];
  return [...document.querySelectorAll("body *")]
    .filter((each) => each.getBoundingClientRect().right > wide)
    .map((each) => each.outerHTML.slice(0, 99));
}
"""
# A part that renews itself is another element then, of the same id.
NOTE_FOCUSED = """
() => {
  document.activeElement.blur();
  window.focused = new Set();
  addEventListener("focusin", ({target}) => focused.add(target.id || target.dataset.number), true);
}
"""
FOCUSED = "() => [...focused]"


def other_paths() -> Iterator[str]:
    """Yield the path of each page that is not in the table: it has no parameter."""
    for path in _routes():
        if "{" not in path and path not in PAGES.values() and not any(f in path for f in FILES):
            yield path


def _routes() -> Iterator[str]:
    found = pages()
    for router in (*found.routers, *found.open_routers):
        for route in router.routes:
            if isinstance(route, APIRoute) and "GET" in route.methods:
                yield route.path


ALL = {**PAGES, **{path.strip("/"): path for path in other_paths()}}
OPENED = {name: ("address", path) for name, path in ALL.items()} | ELSEWHERE


def test_every_page_is_opened_here() -> None:
    found = pages()
    missed = [
        route.path
        for router in (*found.routers, *found.open_routers)
        for route in router.routes
        if isinstance(route, APIRoute)
        and not any(each in route.path for each in FILES)
        and not any(route.path_regex.match(path.partition("?")[0]) for path in ALL.values())
    ]
    assert missed == []


@pytest.mark.parametrize(("server", "path"), OPENED.values(), ids=OPENED.keys())
def test_a_page_is_whole_for_everybody(
    server: str, path: str, site: Site, new_page: NewPage
) -> None:
    address = getattr(site, server)
    page = new_page(address, viewport=WIDE)
    page.goto(path)
    settle(page, stays=path == "/run/undrawn")
    without_scripts = new_page(address, java_script_enabled=False)
    without_scripts.goto(path)
    said = [_lines(each) for each in (page, without_scripts)]
    assert said[0] == said[1]
    assert said[1]
    _reach_everything_by_keys(page)
    for size, scheme in ((WIDE, "light"), (WIDE, "dark"), (NARROW, "light")):
        page.set_viewport_size(size)
        page.emulate_media(color_scheme=scheme)
        assert axe_violations(page) == [], (size["width"], scheme)
        assert page.evaluate(TOO_WIDE) == [], size["width"]


def _reach_everything_by_keys(page: "Page") -> None:
    wanted = page.evaluate(REACHABLE)
    assert wanted
    page.evaluate(NOTE_FOCUSED)
    missed = set(wanted)
    # A date has a stop of its own for year, month, day and calendar.
    for _ in range(5):
        for _ in wanted:
            page.keyboard.press("Tab")
        missed -= set(page.evaluate(FOCUSED))
        if not missed:
            break
    assert [each for each in wanted if each in missed] == []


def _lines(page: "Page") -> list[str]:
    # Playwright reads a page whose own scripts are off.
    return list(page.evaluate(TEXT, ADDED_BY_SCRIPTS))


@pytest.mark.parametrize("run_id", ["green", "yellow", "blocked"])
def test_a_run_is_printed_on_one_page(run_id: str, new_page: NewPage) -> None:
    page = new_page(viewport=WIDE)
    page.goto(f"/run/{run_id}")
    settle(page)
    printed = page.pdf(format="A4", prefer_css_page_size=True)
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) == 1


def test_signing_in_by_keyboard(site: Site, new_page: NewPage) -> None:
    from playwright.sync_api import expect

    page = new_page(site.guarded, viewport=NARROW)
    page.goto("/run/green")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert axe_violations(page) == []
    page.keyboard.type("not this one")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_be_visible()
    assert axe_violations(page) == []
    page.locator("#token").press_sequentially(TOKEN)
    page.keyboard.press("Enter")
    expect(page.locator(".verdict")).to_contain_text("MAY CUT")
    assert axe_violations(page) == []
    page.get_by_role("button", name="Sign out").press("Enter")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
