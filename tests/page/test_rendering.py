"""What every page holds: nothing runs, nothing loads from elsewhere, every character is seen."""

import re
from importlib.resources import files

import pytest
from starlette.requests import Request

from pipeline.page.rendering import page
from tests.builders import run_request
from tests.page.conftest import Element, Site, read_html

TEMPLATES = {
    each.name: each.read_text(encoding="utf-8")
    for each in (files("pipeline.page") / "templates").iterdir()
}
FORBIDDEN = re.compile(
    r"\|\s*safe|<style|\sstyle=|\son[a-z]+=|javascript:|https?://|"
    r"<script(?![^>]* src=\"\{\{ asset\()"
)


def test_no_template_says_that_a_value_is_safe_or_runs_something() -> None:
    found = {name: re.findall(FORBIDDEN, text) for name, text in TEMPLATES.items()}
    assert {name: each for name, each in found.items() if each} == {}


@pytest.mark.parametrize(
    "text",
    [
        *("{{ x|safe }}", "{{ x | safe }}", "<style>", '<p style="x">', '<a onclick="x">'),
        *("javascript:x", "https://elsewhere", "<script>x</script>", '<script src="/x.js">'),
    ],
)
def test_what_is_forbidden_is_found(text: str) -> None:
    assert re.search(FORBIDDEN, text)


def error(message: str) -> Element:
    request = Request(
        {"type": "http", "path": "/", "headers": [], "query_string": b"", "state": {}}
    )
    failed = {"message": message, "status": 404, "code": "NOT_FOUND"}
    answer = page(request, "error.html", title=message, error=failed)
    return read_html(bytes(answer.body).decode())


def test_a_text_of_others_is_text_and_ends_with_its_direction() -> None:
    shown = error("<script>x</script> \u202egnp.exe\u200b")
    assert list(shown.all("script")) != []
    assert all(
        (each.attributes["src"] or "").startswith("/static/") for each in shown.all("script")
    )
    assert shown.one("h1").text == "<script>x</script> ‹U+202E›gnp.exe‹U+200B›"
    assert shown.one("p", class_="problem").one("bdi").text == shown.one("h1").text


async def test_every_page_has_the_policy_and_is_not_kept(site: Site) -> None:
    for path in ("/", "/?status=NONSENSE"):
        headers = (await site.get(path)).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert policy.endswith("form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
        assert "unsafe" not in policy
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "same-origin"


async def test_a_program_at_the_root_is_told_where_to_ask(site: Site) -> None:
    answer = await site.get("/", accept="application/json")
    assert answer.json()["runs"] == "/api/rmos/runs"


async def test_an_error_is_a_page(site: Site) -> None:
    shown = await site.page("/?statsu=OK", 422)
    assert "did you mean status?" in shown.one("main").words


async def test_every_page_has_its_landmarks(site: Site) -> None:
    site.api.add_runs(run_request())
    shown = await site.page("/")
    for name in ("header", "nav", "main", "footer", "h1", "title"):
        assert shown.one(name).words
    assert shown.one("a", class_="skip").attributes["href"] == "#main"
    assert shown.one("main").attributes["id"] == "main"
