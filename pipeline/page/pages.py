"""All pages, in the order in which their paths are matched; a new page is added here."""

from fastapi import APIRouter

from pipeline.page import assets, runs


def pages() -> APIRouter:
    """Return the pages over a store."""
    router = APIRouter()
    for each in (runs, assets):
        router.include_router(each.router)
    return router
