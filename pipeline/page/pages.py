"""All pages, in the order in which their paths are matched; a new page is added here."""

from fastapi import APIRouter

from pipeline.api.http.pages import Pages
from pipeline.page import (
    api_docs,
    assets,
    audits,
    compare,
    dead_letters,
    file,
    flow,
    ledger,
    pictures,
    run,
    runs,
    search,
    sign_in,
)
from pipeline.page.route import error_page


def pages() -> Pages:
    """Return the pages over a store."""
    shown = (
        runs,
        run,
        pictures,
        compare,
        file,
        search,
        ledger,
        audits,
        flow,
        dead_letters,
        api_docs,
    )
    return _guarded(*(module.router for module in shown))


def legacy_pages() -> Pages:
    """Return the pages of v1 mode: one that says so."""
    return _guarded(runs.legacy_router)


def _guarded(*routers: APIRouter) -> Pages:
    return Pages(
        routers=routers,
        open_routers=(sign_in.router, assets.router),
        cookie_token=sign_in.cookie_token,
        ask_for_token=sign_in.ask_for_token,
        error_page=error_page,
    )
