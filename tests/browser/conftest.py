"""The pages in a real browser: the real application on a socket, over a store with real runs.

Nothing here may loosen what is tested: no test turns the policy of the pages off. Wait by `expect`:
`page.wait_for_function` is an eval in the page, which the policy refuses.
"""

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from pipeline.api.http.server import address_of, listen, serving
from pipeline.page.pages import legacy_pages, pages
from tests.api.conftest import api_over, tokens_of
from tests.browser.broker import ShopBroker
from tests.browser.shop import HOSTILE, make_shop
from tests.ledger.ledgers import KEYS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Response, Route

TOKEN = "a-token-of-the-shop"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
# In the page, as early as any script of it.
REPORT_VIOLATIONS = """
addEventListener("securitypolicyviolation", (event) =>
  console.error("CSP", event.violatedDirective, event.blockedURI, event.sample), true);
"""
AXE = """
axe.run().then((found) => found.violations.map((each) =>
  `${each.id}: ${each.help}: ${each.nodes.map((node) => node.html).slice(0, 3).join(" ")}`))
"""


@dataclass(frozen=True, slots=True)
class Site:
    """Servers over one store.

    Attributes:
        address: Of the one that asks for no token, and has a broker.
        guarded: Of the one that asks for one.
        away: Of the one whose broker does not answer.
        v1: Of the one in v1 mode.
        runs: The run_id of each, by what it is for.
    """

    address: str
    guarded: str
    away: str
    v1: str
    runs: dict[str, str]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("shop")
    runs = make_shop(folder / "store")
    tokens = tokens_of(folder / "tokens", ("ana", "read", TOKEN))
    with pytest.MonkeyPatch.context() as patch:
        # The keys that an operator hands out; without them nothing is proven.
        patch.setattr("pipeline.storage.ledger_key.verifier_keys", lambda *_: KEYS)
        servers: list[dict[str, Any]] = [
            {"broker": ShopBroker(HOSTILE)},
            {"tokens": tokens},
            {},
            {"pages": legacy_pages()},
        ]
        with served(folder / "store", *servers) as addresses:
            yield Site(*addresses, runs)


@contextmanager
def served(root: Path, *servers: dict[str, Any]) -> Iterator[list[str]]:
    """Serve a store in a thread, once for each of `servers`: what `api_over` takes."""
    started: Future[tuple[list[str], Callable[[], None]]] = Future()

    async def serve() -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        async with AsyncExitStack() as stack:
            addresses = []
            for each in servers:
                options = {"pages": pages(), **each}
                api = await stack.enter_async_context(api_over(root, **options))
                listening = listen("127.0.0.1", 0)
                addresses.append(f"http://{address_of(listening)}")
                await stack.enter_async_context(serving(api.app, listening, stop_seconds=1))
            started.set_result((addresses, lambda: loop.call_soon_threadsafe(stop.set)))
            await stop.wait()

    with ThreadPoolExecutor(1) as thread:
        ended = thread.submit(asyncio.run, serve())
        ended.add_done_callback(
            lambda done: started.done() or started.set_exception(done.exception())
        )
        addresses, stop = started.result()
        yield addresses
        stop()
        ended.result()


def chromium_path() -> str:
    """Return the path of a Chromium on this machine."""
    named = os.environ.get("RMOS_TEST_CHROMIUM")
    found = named or next(filter(None, map(shutil.which, PROGRAMS)), None)
    if found is None or not os.access(found, os.X_OK):
        pytest.fail(
            f"No Chromium is at {named or 'any place of PATH'}: install Debian's package chromium "
            "(apt-get install chromium), or set RMOS_TEST_CHROMIUM to the path of one.",
            pytrace=False,
        )
    return found


@pytest.fixture(scope="session")
def browser() -> "Iterator[Browser]":
    """Start one browser for all tests; each test has contexts of its own."""
    path = chromium_path()
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        pytest.fail("Playwright is missing: pip install -e '.[browser]'.", pytrace=False)
    with sync_playwright() as playwright:
        # Chromium refuses its sandbox to root.
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        running = playwright.chromium.launch(executable_path=path, args=options)
        yield running
        running.close()


@dataclass  # without slots: Playwright keeps its own attributes on it
class Watch:
    """What must not happen on a page.

    Attributes:
        problems: Errors of the console, reports of the policy, dialogs, requests to elsewhere.
    """

    address: str
    problems: list[str] = field(default_factory=list)
    _failed: set[str] = field(default_factory=set)

    def over(self, page: "Page") -> None:
        page.set_default_timeout(60_000)
        page.add_init_script(REPORT_VIOLATIONS)
        page.on("console", self._console)
        page.on("response", self._response)
        page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        page.on("dialog", self._dialog)
        page.on("popup", lambda popup: self.problems.append(f"popup: {popup.url}"))
        page.context.route("**/*", self._route)

    def _response(self, response: "Response") -> None:
        if response.status >= 400 and response.request.is_navigation_request():
            # The page of an error: Chromium reports the status of any.
            self._failed.add(response.url)

    def _console(self, message: "ConsoleMessage") -> None:
        is_status = message.text.startswith("Failed to load resource: the server responded with")
        if message.type in {"error", "warning"} and not (
            is_status and message.location["url"] in self._failed
        ):
            self.problems.append(f"{message.type}: {message.text} ({message.location['url']})")

    def _dialog(self, dialog: Any) -> None:
        self.problems.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _route(self, route: "Route", request: "Request") -> None:
        if urlsplit(request.url)[:2] == urlsplit(self.address)[:2]:
            route.continue_()
        else:
            self.problems.append(f"request to {request.url}")
            route.abort()


NewPage = Callable[..., "Page"]


@pytest.fixture
def new_page(browser: "Browser", site: Site) -> "Iterator[NewPage]":
    """Give pages that are watched; at the end of the test nothing may have happened."""
    watches, contexts = [], []

    def make(address: str = site.address, **options: Any) -> "Page":
        context = browser.new_context(base_url=address, **options)
        contexts.append(context)
        page = context.new_page()
        watches.append(Watch(address))
        watches[-1].over(page)
        return page

    yield make
    for context in contexts:
        context.close()
    assert [problem for watch in watches for problem in watch.problems] == []


def settle(page: "Page", *, stays: bool = False) -> None:
    """Wait until each way of a tool can be turned, or its picture is known to stay."""
    from playwright.sync_api import expect

    figures = page.locator("figure[data-toolpath]")
    for number in range(figures.count()):
        expect(figures.nth(number)).to_have_class("stays" if stays else "turns", timeout=60_000)
        expect(figures.nth(number).locator("img" if stays else "canvas")).to_be_visible()


def axe_violations(page: "Page") -> list[str]:
    """Return what axe-core finds, run in a world of its own: its script is none of the page's."""
    session = page.context.new_cdp_session(page)
    frame = session.send("Page.getFrameTree")["frameTree"]["frame"]["id"]
    made = session.send("Page.createIsolatedWorld", {"frameId": frame, "worldName": "axe"})
    axe = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
    found: dict[str, Any] = {}
    for expression in (axe, AXE):
        found = session.send(
            "Runtime.evaluate",
            {
                "expression": expression,
                "contextId": made["executionContextId"],
                "awaitPromise": expression == AXE,
                "returnByValue": expression == AXE,
            },
        )
        assert "exceptionDetails" not in found, found
    session.detach()
    return list(found["result"]["value"])
