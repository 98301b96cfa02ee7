"""A file is hashed in the browser: it is never sent, and one changed byte is another file."""

from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import NewPage
from tests.browser.shop import ISLAND
from tests.builders import GCODE, sha256

if TYPE_CHECKING:
    from playwright.sync_api import Request

pytestmark = pytest.mark.browser


@pytest.mark.parametrize(
    ("content", "verdict"),
    [
        (ISLAND, "MAY CUT"),
        (ISLAND.replace("F300", "F301"), "DO NOT CUT"),
        # A blocked run withholds these very bytes, although another run may be cut by them.
        (GCODE, "DO NOT CUT"),
    ],
)
def test_a_file_is_asked_about_by_its_hash_alone(
    content: str, verdict: str, new_page: NewPage
) -> None:
    from playwright.sync_api import expect

    page = new_page()
    page.goto("/file")
    asked: list[Request] = []

    def note(request: "Request") -> None:
        asked.append(request)

    page.on("request", note)
    page.locator("input[type=file]").set_input_files(
        {"name": "part.nc", "mimeType": "text/plain", "buffer": content.encode()}
    )
    expect(page.locator(".verdict")).to_contain_text(verdict)
    assert page.url.endswith(f"/file?sha256={sha256(content)}")
    assert {(each.method, each.post_data) for each in asked} == {("GET", None)}


def test_where_a_browser_cannot_hash_the_page_names_the_command(new_page: NewPage) -> None:
    from playwright.sync_api import expect

    page = new_page()
    # As on a page that came over plain HTTP from another machine.
    page.add_init_script("Reflect.deleteProperty(Crypto.prototype, 'subtle')")
    page.goto("/file")
    expect(page.get_by_role("status")).to_contain_text("sha256sum")
    expect(page.locator("input[type=file]")).to_be_hidden()
