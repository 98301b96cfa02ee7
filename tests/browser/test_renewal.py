"""A part that renews itself: filters count, and what is old says so."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import Site

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

pytestmark = pytest.mark.browser
PATIENCE_MS = 60_000


@pytest.fixture
def page(browser: "Browser", site: Site) -> "Iterator[Page]":
    """Give a page that is not watched: here requests fail, which a browser writes down."""
    context = browser.new_context(base_url=site.address)
    opened = context.new_page()
    opened.set_default_timeout(PATIENCE_MS)
    yield opened
    context.close()


def test_a_filter_counts_while_a_renewal_is_under_way(page: "Page") -> None:
    from playwright.sync_api import expect

    held: list[Route] = []
    asked: list[Route] = []

    def hold(route: "Route") -> None:
        if "hx-request" not in route.request.headers:
            route.continue_()
        elif "status=BLOCKED" in route.request.url:
            asked.append(route)
        else:
            held.append(route)

    page.goto("/")
    page.route("**/*", hold)
    with page.expect_request(lambda request: "hx-request" in request.headers):
        pass
    with page.expect_request(lambda request: "status=BLOCKED" in request.url):
        page.get_by_label("Status").select_option("BLOCKED")
    # The answer of the renewal comes first; without the filter's hold on it, it replaced the list.
    held[0].continue_()
    page.evaluate("new Promise((done) => setTimeout(done, 500))")
    asked[0].continue_()
    statuses = page.locator("#runs .at-status")
    expect(statuses.filter(has_text="OK")).to_have_count(0, timeout=PATIENCE_MS)
    expect(statuses.filter(has_text="BLOCKED").first).to_be_visible(timeout=PATIENCE_MS)
    assert "status=BLOCKED" in page.url


def test_a_filter_that_is_refused_leaves_the_list_and_says_why(page: "Page") -> None:
    from playwright.sync_api import expect

    page.goto("/")
    rows = page.locator("#runs tbody tr")
    before = rows.count()
    page.get_by_label("Mode").fill("m" * 201)
    page.get_by_label("Mode").blur()
    notice = page.get_by_role("alert")
    expect(notice).to_contain_text("This cannot be asked: mode", timeout=PATIENCE_MS)
    expect(rows).to_have_count(before)
    with page.expect_response(lambda answer: answer.request.headers.get("hx-trigger") == "runs"):
        pass
    expect(notice).to_be_visible()
    page.get_by_label("Mode").fill("saw")
    page.get_by_label("Mode").blur()
    expect(notice).to_have_count(0, timeout=PATIENCE_MS)


@pytest.mark.parametrize(("path", "part"), [("/", "#runs"), ("/flow", "#flow")])
def test_what_is_not_renewed_any_more_says_so(path: str, part: str, page: "Page") -> None:
    from playwright.sync_api import expect

    page.goto(path)
    for refuse, words in (
        (lambda route: route.abort(), "The server does not answer."),
        (lambda route: route.fulfill(status=500, body="{}"), "The server refuses (500)."),
        (lambda route: route.fulfill(status=200, body="<h1>Sign in</h1>"), "another page"),
    ):
        page.route("**/*", refuse)
        notice = page.get_by_role("alert")
        expect(notice).to_contain_text(words, timeout=PATIENCE_MS)
        expect(notice).to_contain_text("Not renewed since 20")
        expect(page.locator(part)).to_be_visible()
        page.unroute("**/*")
        expect(notice).to_have_count(0, timeout=PATIENCE_MS)


def test_a_verdict_that_is_not_renewed_is_not_green(page: "Page") -> None:
    from playwright.sync_api import expect

    def renew() -> None:
        with page.expect_request(lambda request: "hx-request" in request.headers):
            page.clock.run_for(15_000)

    page.clock.install()
    page.goto("/run/yellow")
    verdict, part = page.locator(".verdict"), page.locator("#verdict")
    expect(verdict).to_contain_text("MAY CUT")
    renew()
    expect(page.get_by_role("alert")).to_have_count(0)
    page.route("**/*", lambda route: route.fulfill(status=500, body="<p class=problem>damaged</p>"))
    renew()
    notice = page.get_by_role("alert")
    expect(notice).to_contain_text("The server refuses (500). damaged", timeout=PATIENCE_MS)
    expect(part).to_have_class("is-old")
    assert page.title().startswith("NOT RENEWED")
    page.unroute("**/*")
    renew()
    expect(notice).to_have_count(0, timeout=PATIENCE_MS)
    assert page.title().startswith("MAY CUT")
