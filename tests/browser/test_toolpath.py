"""The toolpath in a browser: the right picture, turned by mouse, finger and keys.

The pictures that are kept lie in `tests/browser/pictures`: a canvas of each real program from above
and at an angle, in grey, made small. `RMOS_TEST_KEEP_PICTURES=1` with the test keeps new ones: look
at them before they are committed.
"""

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.conftest import NewPage, Site, settle
from tests.browser.shop import programs

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

PICTURES = Path(__file__).parent / "pictures"
NAMES = [program.name for program in programs()]
SIZE = (160, 120)
MOST_ON_AVERAGE, MOST_OF_A_BLOCK = 0.1, 4.0
"""Of 255: what another version of Chromium may draw otherwise, on average and of 8 by 8 pixels.

The picture of the fewest lines, upside down, differs by 0.13 and 9; shifted by one pixel, by 0.2
and 10.
"""

real_programs = pytest.mark.parametrize(
    "name",
    NAMES
    or [pytest.param("", marks=pytest.mark.skip("shared/data beside the repository is not here"))],
)


@real_programs
def test_the_picture_of_a_real_program_is_the_one_that_is_kept(
    name: str, site: Site, new_page: NewPage
) -> None:
    page = drawn(new_page, site.runs[name], viewport={"width": 1280, "height": 1200})
    for view, button in (("above", "From above"), ("angle", "At an angle")):
        page.get_by_role("button", name=button).click()
        compare(picture(page), PICTURES / f"{name}.{view}.png")


def drawn(new_page: NewPage, run_id: str, **options: Any) -> "Page":
    """Return the page of a run whose canvas is drawn."""
    page = new_page(**options)
    page.goto(f"/run/{run_id}")
    settle(page)
    return page


def picture(page: "Page", number: int = 0) -> bytes:
    """Return a canvas as PNG, once the frame that was asked for is drawn."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return page.locator("canvas").nth(number).screenshot()


def compare(png: bytes, kept: Path) -> None:
    from PIL import Image, ImageChops, ImageStat

    found = Image.open(io.BytesIO(png)).convert("L").resize(SIZE, Image.Resampling.BOX)
    if os.environ.get("RMOS_TEST_KEEP_PICTURES"):
        kept.parent.mkdir(exist_ok=True)
        found.save(kept, optimize=True)
    difference = ImageChops.difference(found, Image.open(kept))
    assert ImageStat.Stat(difference).mean[0] <= MOST_ON_AVERAGE
    blocks = difference.resize((SIZE[0] // 8, SIZE[1] // 8), Image.Resampling.BOX)
    assert blocks.getextrema()[1] <= MOST_OF_A_BLOCK


def test_keys_turn_the_picture_and_zero_turns_it_back(new_page: NewPage) -> None:
    page = drawn(new_page, "yellow")
    page.locator("canvas").focus()
    page.keyboard.press("0")
    before = picture(page)
    seen = {before}
    for key in ("ArrowRight", "ArrowUp", "+", "Shift+ArrowLeft", "-"):
        page.keyboard.press(key)
        seen.add(picture(page))
    assert len(seen) == 6
    page.keyboard.press("0")
    assert picture(page) == before


def test_a_mouse_turns_the_picture(new_page: NewPage) -> None:
    page = drawn(new_page, "yellow")
    before = picture(page)
    x, y = middle(page)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y - 30)
    page.mouse.up()
    after = picture(page)
    assert after != before
    page.mouse.move(x - 60, y)
    assert picture(page) == after


def test_a_finger_turns_the_picture_and_two_make_it_larger(new_page: NewPage) -> None:
    page = drawn(new_page, "yellow", has_touch=True)
    before = picture(page)
    x, y = middle(page)
    session = page.context.new_cdp_session(page)

    def touch(kind: str, *places: tuple[float, float]) -> None:
        points = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(places)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", (x, y))
    for step in range(1, 6):
        touch("touchMove", (x + 15 * step, y))
    touch("touchEnd")
    turned = picture(page)
    assert turned != before
    page.get_by_role("button", name="From above").click()
    assert picture(page) == before
    x, y = middle(page)  # The button may have scrolled the page.
    touch("touchStart", (x - 20, y), (x + 20, y))
    for step in range(1, 6):
        touch("touchMove", (x - 20 - 8 * step, y), (x + 20 + 8 * step, y))
    touch("touchEnd")
    assert picture(page) not in {before, turned}


def middle(page: "Page") -> tuple[float, float]:
    page.locator("canvas").scroll_into_view_if_needed()
    box = page.locator("canvas").bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_a_slider_steps_through_the_lines(new_page: NewPage) -> None:
    from playwright.sync_api import expect

    page = drawn(new_page, "yellow")
    whole = picture(page)
    page.get_by_role("slider").focus()
    page.keyboard.press("Home")
    expect(page.locator(".steps output")).to_have_text("before the first move")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".steps output")).to_have_text("line 5: X 10.000, Y 10.000, Z 5.000 mm")
    assert picture(page) != whole
    page.keyboard.press("End")
    expect(page.locator(".steps output")).to_have_text("whole program")
    assert picture(page) == whole


def test_a_dark_page_has_a_dark_picture(new_page: NewPage) -> None:
    page = drawn(new_page, "yellow")
    light = picture(page)
    page.emulate_media(color_scheme="dark")
    assert picture(page) != light


@pytest.mark.parametrize("run_id", ["blocked", "damaged"])
def test_nothing_is_drawn_of_a_run_that_may_not_be_cut(run_id: str, new_page: NewPage) -> None:
    page = new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"/run/{run_id}")
    assert page.locator("canvas, figure, main img").count() == 0
    assert [url for url in asked if "toolpath." in url and "/static/" not in url] == []


def test_two_pictures_turn_together_and_lie_over_each_other(new_page: NewPage) -> None:
    from playwright.sync_api import expect

    page = new_page()
    page.goto("/compare?a=yellow&b=other")
    settle(page)
    overlay = page.locator("[data-overlay]")
    expect(overlay).to_contain_text("only in a")
    expect(page.locator("canvas")).to_have_count(3)
    before = [picture(page, number) for number in range(3)]
    page.locator("canvas").first.focus()
    page.keyboard.press("ArrowUp")
    after = [picture(page, number) for number in range(3)]
    assert all(a != b for a, b in zip(before, after, strict=True))


def test_it_is_said_where_two_programs_are_drawn_alike(new_page: NewPage) -> None:
    from playwright.sync_api import expect

    page = new_page()
    page.goto("/compare?a=yellow&b=again")
    settle(page)
    expect(page.locator("[data-overlay]")).to_contain_text("are drawn of both", timeout=60_000)


def test_the_same_places_in_another_order_are_not_called_the_same(new_page: NewPage) -> None:
    from playwright.sync_api import expect

    page = new_page()
    page.goto("/compare?a=twice&b=thrice")
    settle(page)
    words = "The same places, in another order or number"
    expect(page.locator("[data-overlay]")).to_contain_text(words, timeout=60_000)
