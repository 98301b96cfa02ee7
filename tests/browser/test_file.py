"""A file is hashed in the browser: it is never sent, and one changed byte is another file."""

from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import NewPage
from tests.browser.shop import ISLAND
from tests.builders import GCODE, sha256

if TYPE_CHECKING:
    from playwright.sync_api import FilePayload, Request

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


def test_an_answer_goes_as_soon_as_another_file_is_chosen(new_page: NewPage) -> None:
    from playwright.sync_api import expect

    def file(name: str, content: str = ISLAND) -> "FilePayload":
        return {"name": name, "mimeType": "text/plain", "buffer": content.encode()}

    page = new_page()
    page.goto("/file")
    chooser, verdict = page.locator("input[type=file]"), page.locator(".verdict")
    chooser.set_input_files(file("part\u202e.nc"))
    expect(verdict).to_contain_text("MAY CUT")
    expect(page.locator("[data-name]")).to_have_text("part‹U+202E›.nc")
    # One that no browser can read.
    page.evaluate("() => { File.prototype.arrayBuffer = () => Promise.reject(new Error('gone')); }")
    chooser.set_input_files(file("other.nc"))
    expect(page.get_by_role("status")).to_contain_text("cannot read other.nc")
    expect(verdict).to_have_count(0)
    expect(page.locator("#sha256")).to_have_value("")
    assert "MAY CUT" not in page.title()


def test_several_files_at_once_are_none(new_page: NewPage) -> None:
    from playwright.sync_api import expect

    page = new_page()
    page.goto(f"/file?sha256={sha256(ISLAND)}")
    expect(page.locator(".verdict")).to_contain_text("MAY CUT")
    page.evaluate(
        """() => {
          const dataTransfer = new DataTransfer();
          for (const name of ["a.nc", "b.nc"]) dataTransfer.items.add(new File(["G0"], name));
          dispatchEvent(new DragEvent("drop", { dataTransfer, cancelable: true }));
        }"""
    )
    expect(page.get_by_role("status")).to_contain_text("2 files: nothing is asked")
    expect(page.locator(".verdict")).to_have_count(0)


def test_of_two_files_the_last_one_is_asked_about(new_page: NewPage) -> None:
    from playwright.sync_api import expect

    page = new_page()
    page.goto("/file")
    # The first is read slowly: its bytes come after those of the second.
    page.evaluate(
        """() => {
          const read = File.prototype.arrayBuffer;
          let late;
          File.prototype.arrayBuffer = function () {
            if (this.name !== "slow.nc") return read.call(this).finally(() => late());
            return new Promise((done) => { late = () => done(read.call(this)); });
          };
        }"""
    )
    chooser = page.locator("input[type=file]")
    for name, content in (("slow.nc", ISLAND), ("quick.nc", "G0 X1\n")):
        chooser.set_input_files(
            {"name": name, "mimeType": "text/plain", "buffer": content.encode()}
        )
    expect(page.locator("[data-name]")).to_have_text("quick.nc")
    expect(page.locator(".verdict")).to_contain_text("no run knows these bytes")
