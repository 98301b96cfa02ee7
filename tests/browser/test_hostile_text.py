"""Hostile text in every field of a run and an advisory: it is shown, nothing runs or loads."""

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import NewPage, Site, settle

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("scripts", [True, False])
def test_hostile_text_is_only_text(site: Site, new_page: NewPage, scripts: bool) -> None:
    page = new_page(java_script_enabled=scripts)
    for path in ("/", "/run/hostile", "/run/hostile/verified", "/run/large"):
        page.goto(path)
        for summary in page.locator("summary").all():
            summary.click()
        if scripts:
            settle(page)
        text = page.locator("main").inner_text()
        if path != "/":
            assert "<script>alert(1)</script>" in text
            assert "‹U+202E›gnp.exe" in text
            assert "\u202e" not in text
        assert page.locator("main script, main style, main [onerror], main [onload]").count() == 0
        for link in page.locator("a").all():
            assert not (link.get_attribute("href") or "").startswith("javascript:")
        for image in page.locator("img").all():
            assert (image.get_attribute("src") or "").startswith("/run/")


def test_a_picture_by_a_producer_runs_nothing_even_by_itself(
    browser: "Browser", site: Site
) -> None:
    # Not watched: that the browser reports what it refuses is right here.
    with closing(browser.new_context()) as context:
        page = context.new_page()
        happened: list[str] = []
        page.on("dialog", lambda dialog: (happened.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: happened.append(request.url))
        answer = page.goto(f"{site.address}/run/hostile/preview.svg")
        assert answer is not None
        assert answer.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
        assert page.locator("svg").get_attribute("onload") == "alert(5)"
        assert happened == [f"{site.address}/run/hostile/preview.svg"]
