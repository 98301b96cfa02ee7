"""Every page, wide, narrow and dark: no error, no report of the policy, axe-core finds nothing."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from fastapi.routing import APIRoute

from pipeline.page.pages import pages
from tests.browser.conftest import TOKEN, NewPage, Site, axe_violations, settle
from tests.browser.shop import AUDIT
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
    "audit": f"/audits/{AUDIT}",
    "letter, while no broker answers": "/dead-letters/rmos.runs.dead-letters/0/0",
    "sign in": "/sign-in",
}
FILES = (
    "artifact",
    "evidence",
    "attachments/",
    "pictures/",
    "preview.svg",
    "toolpath.",
    "/static/",
    "sign-out",
)
"""Parts of the paths at which something else than a page is."""

WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
ADDED_BY_SCRIPTS = ".turning, .steps, .facts-of-program, [data-overlay], [data-drop], [data-said]"
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
    .map((each, number) => (each.dataset.number = `${number} ${each.outerHTML.slice(0, 80)}`));
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
FOCUSED = "() => document.activeElement?.dataset.number ?? null"


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
every_page = pytest.mark.parametrize("path", ALL.values(), ids=ALL.keys())


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


@every_page
def test_a_page_is_whole_wide_and_narrow_and_dark(path: str, new_page: NewPage) -> None:
    page = new_page(viewport=WIDE)
    for size, scheme in ((WIDE, "light"), (WIDE, "dark"), (NARROW, "light")):
        page.set_viewport_size(size)
        page.emulate_media(color_scheme=scheme)
        page.goto(path)
        settle(page)
        assert axe_violations(page) == [], (size["width"], scheme)
        assert page.evaluate(TOO_WIDE) == [], size["width"]


@every_page
def test_the_keyboard_alone_reaches_everything(path: str, new_page: NewPage) -> None:
    page = new_page(viewport=WIDE)
    page.goto(path)
    settle(page)
    wanted = page.evaluate(REACHABLE)
    assert wanted
    page.evaluate("document.activeElement.blur()")
    reached = set()
    # A date has a stop of its own for year, month, day and calendar.
    for _ in range(4 * len(wanted) + 5):
        page.keyboard.press("Tab")
        reached.add(page.evaluate(FOCUSED))
        if reached.issuperset(wanted):
            break
    assert [each for each in wanted if each not in reached] == []


@every_page
def test_a_page_says_the_same_without_scripts(path: str, new_page: NewPage) -> None:
    with_scripts, without = new_page(viewport=WIDE), new_page(java_script_enabled=False)
    said = []
    for page in (with_scripts, without):
        page.goto(path)
        said.append(page)
    settle(with_scripts)
    lines = [_lines(page) for page in said]
    assert lines[0] == lines[1]
    assert lines[1]


def _lines(page: "Page") -> list[str]:
    # Playwright reads a page whose own scripts are off.
    return list(page.evaluate(TEXT, ADDED_BY_SCRIPTS))


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
