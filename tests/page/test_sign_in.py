"""Signing in: the cookie opens pages and nothing else, and ends with the line of its token."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog
from fastapi.routing import APIRoute

from pipeline.api.http.tokens import Tokens
from pipeline.page.pages import pages
from pipeline.page.sign_in import own_path
from tests.api.conftest import RUNS, tokens_of
from tests.builders import run_request
from tests.page.conftest import Site, read_html, site_over

TOKEN = "aB3-secret.of+ana/42="
OTHER = "another"


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    return tokens_of(tmp_path, ("ana", "read", TOKEN), ("cam", "publish", OTHER))


@pytest.fixture
async def guarded(tmp_path: Path, tokens: Tokens) -> AsyncIterator[Site]:
    async with site_over(tmp_path / "store", tokens=tokens) as site:
        yield site


async def sign_in(site: Site, token: str = TOKEN, following: str = "/", **headers: str) -> str:
    """Return the cookie, as a browser sends it back."""
    form = {"token": token, "next": following}
    answer = await site.api.http.post("/sign-in", data=form, headers=headers)
    assert (answer.status_code, answer.headers["location"]) == (303, following)
    site.api.http.cookies.clear()
    return answer.headers["set-cookie"]


async def test_without_a_token_a_page_leads_to_signing_in_and_back(guarded: Site) -> None:
    answer = await guarded.get("/?status=OK&mode=a%20b")
    assert answer.status_code == 303
    form = await guarded.page(answer.headers["location"])
    assert form.one("input", name="next").attributes["value"] == "/?status=OK&mode=a%20b"
    # With scripts, a part that renews itself asks for the whole page.
    part = await guarded.get("/", **{"hx-request": "true"})
    assert (part.status_code, part.headers["hx-refresh"]) == (401, "true")


async def test_the_cookie_is_the_token_and_no_script_or_other_site_has_it(guarded: Site) -> None:
    plain = await sign_in(guarded)
    assert plain == f"rmos_token={TOKEN}; Path=/; HttpOnly; SameSite=Strict"
    by_proxy = await sign_in(guarded, **{"x-forwarded-proto": "https"})
    assert by_proxy == (f"__Host-rmos_token={TOKEN}; Path=/; HttpOnly; SameSite=Strict; Secure")
    assert by_proxy == await sign_in(guarded, host="runs.shop", origin="https://runs.shop")


async def test_the_cookie_opens_every_page_and_no_route_of_the_api(guarded: Site) -> None:
    guarded.api.add_runs(run_request())
    cookie = (await sign_in(guarded)).partition(";")[0]
    assert (await guarded.get("/", cookie="rmos_token=x")).status_code == 303
    for method, path in (
        *(("GET", f"{alias}{end}") for alias in (RUNS, "/runs") for end in ("", "/run_1")),
        *(("GET", path) for path in ("/metrics", "/openapi.json")),
        *(("POST", RUNS), ("POST", "/"), ("PUT", f"{RUNS}/attachments/{'0' * 64}")),
    ):
        answer = await guarded.api.http.request(method, path, headers={"cookie": cookie})
        assert answer.status_code == 401, path
    bearer = {"authorization": f"Bearer {TOKEN}"}
    assert (await guarded.get("/", **bearer)).status_code == 200


def test_no_path_of_a_page_is_one_of_the_api() -> None:
    found = [
        route.path
        for router in pages().routers
        for route in router.routes
        if isinstance(route, APIRoute)
    ]
    assert "/" in found
    for path in found:
        assert not path.startswith(("/api", "/runs", "/health", "/metrics", "/openapi")), path


async def test_every_page_asks_for_a_token(guarded: Site) -> None:
    for router in pages().routers:
        for route in router.routes:
            assert isinstance(route, APIRoute)
            assert route.methods == {"GET"}
            path = route.path.replace("{", "").replace("}", "").replace(":path", "")
            assert (await guarded.get(path)).status_code == 303, path


async def test_a_line_that_is_taken_out_ends_its_cookie_at_once(
    guarded: Site, tmp_path: Path
) -> None:
    cookie = (await sign_in(guarded)).partition(";")[0]
    assert (await guarded.get("/", cookie=cookie)).status_code == 200
    file = tmp_path / "tokens.txt"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[1:]))
    assert (await guarded.get("/", cookie=cookie)).status_code == 303
    other = {"authorization": f"Bearer {OTHER}"}
    assert (await guarded.api.http.get(RUNS, headers=other)).status_code == 200
    file.write_text("".join(lines))
    assert (await guarded.get("/", cookie=cookie)).status_code == 200
    for bad in ("nothing of the form\n", None):
        file.unlink() if bad is None else file.write_text(bad)
        assert (await guarded.get("/", cookie=cookie)).status_code == 303
        assert (await guarded.api.http.get(RUNS, headers=other)).status_code == 401


@pytest.mark.parametrize("token", ["", "nobody's", "a;b", "x" * 2000, "é", TOKEN + "\n1"])
async def test_an_unknown_token_is_refused(guarded: Site, token: str) -> None:
    form = {"token": token, "next": "//elsewhere"}
    answer = await guarded.api.http.post("/sign-in", data=form)
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    shown = read_html(answer.text)
    assert shown.one("p", class_="problem").words == "This token is not known here."
    assert shown.one("input", name="next").attributes["value"] == "/"
    assert not token or token not in answer.text


async def test_a_page_of_another_site_signs_nobody_in_or_out(guarded: Site) -> None:
    for path in ("/sign-in", "/sign-out"):
        answer = await guarded.api.http.post(
            path, data={"token": TOKEN}, headers={"origin": "https://evil.example"}
        )
        assert answer.status_code == 403


async def test_signing_out_takes_both_cookies_back(guarded: Site) -> None:
    answer = await guarded.api.http.post("/sign-out")
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")
    taken = answer.headers.get_list("set-cookie")
    assert [each.partition("=")[0] for each in taken] == ["rmos_token", "__Host-rmos_token"]
    assert all("=; " in each and each.endswith("; Max-Age=0") for each in taken)


async def test_a_page_says_who_is_signed_in_and_offers_the_way_out(guarded: Site) -> None:
    cookie = (await sign_in(guarded)).partition(";")[0]
    shown = await guarded.page("/", cookie=cookie)
    form = shown.one("form", class_="sign-out")
    assert form.attributes["action"] == "/sign-out"
    assert "ana" in (form.one("button").attributes["title"] or "")


async def test_no_log_line_has_the_token(guarded: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with structlog.testing.capture_logs(
        processors=[structlog.contextvars.merge_contextvars]
    ) as lines:
        cookie = (await sign_in(guarded)).partition(";")[0]
        await guarded.get("/", cookie=cookie)
        await guarded.get("/", cookie="rmos_token=wrong-secret")
        await guarded.api.http.post("/sign-in", data={"token": "wrong-secret"})
    assert [line["status"] for line in lines] == [303, 200, 303, 401]
    assert lines[1]["token"] == "ana"
    assert "secret" not in str(lines)


async def test_without_tokens_there_is_nothing_to_sign_in_to(site: Site) -> None:
    answer = await site.get("/sign-in?next=/?status=OK")
    assert (answer.status_code, answer.headers["location"]) == (303, "/?status=OK")
    assert not list((await site.page("/")).all("form", class_="sign-out"))


@pytest.mark.parametrize(
    "elsewhere",
    [
        *("//evil.example", "/\\evil.example", "https://evil.example", "evil", "", None),
        *("/a\r\nset-cookie: x=y", "/\tb", "\\/evil", "/é", "javascript:x"),
    ],
)
def test_signing_in_leads_nowhere_else(elsewhere: str | None) -> None:
    assert own_path(elsewhere) == "/"


def test_signing_in_leads_to_a_path_with_its_query() -> None:
    assert own_path("/run/run_1?x=%0d&y=a+b") == "/run/run_1?x=%0d&y=a+b"
