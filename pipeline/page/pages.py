"""All pages, in the order in which their paths are matched; a new page is added here."""

from types import ModuleType

from pipeline.api.http.pages import Pages
from pipeline.page import (
    about_v1,
    assets,
    audits,
    compare,
    file,
    ledger,
    run,
    run_files,
    runs,
    search,
    sign_in,
)


def pages() -> Pages:
    """Return the pages over a store."""
    return _guarded(runs, run, run_files, compare, file, search, ledger, audits)


def legacy_pages() -> Pages:
    """Return the pages of v1 mode: one that says so."""
    return _guarded(about_v1)


def _guarded(*modules: ModuleType) -> Pages:
    return Pages(
        routers=tuple(module.router for module in modules),
        open_routers=(sign_in.router, assets.router),
        cookie_token=sign_in.cookie_token,
        ask_for_token=sign_in.ask_for_token,
    )
