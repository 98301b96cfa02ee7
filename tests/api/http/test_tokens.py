"""Who may use the API: the file of tokens, what it refuses, and what a token lets through."""

import hashlib
from pathlib import Path

import pytest

from pipeline.api.http.tokens import Tokens, tokens_for
from pipeline.core.http_hosts import is_loopback
from pipeline.errors import InputError
from tests.api.conftest import RUNS, api_over

READ, PUBLISH = "read-me", "cut-it"


def line(name: str, role: str, token: str) -> str:
    return f"{name} {role} {hashlib.sha256(token.encode()).hexdigest()}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text(
        "# who\n\n" + line("auditor", "read", READ) + line("cam", "publish", PUBLISH),
        encoding="utf-8",
    )
    return path


def test_a_token_is_found_by_its_hash(file: Path) -> None:
    tokens = Tokens(file)
    found = tokens.find(PUBLISH)
    assert found is not None
    assert (found.name, found.role) == ("cam", "publish")
    assert tokens.find("") is None
    assert tokens.find(found.sha256) is None
    assert tokens.find("\udce4") is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "holds no token"),
        ("# nothing\n", "holds no token"),
        ("cam publish\n", "line 1: expected `name role sha256hex`, found 2 words"),
        (line("cam", "admin", "x"), "line 1: expected the role read or publish"),
        (line("a", "read", "x") + "cam publish secret\n", "line 2: expected the SHA-256"),
        (line("cam", "publish", "x").upper().replace("PUBLISH", "publish"), "line 1: expected the"),
    ],
)
def test_a_file_of_another_form_is_refused(file: Path, text: str, why: str) -> None:
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as refused:
        Tokens(file)
    assert why in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        Tokens(tmp_path / "nothing")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_no_tokens(host: str) -> None:
    assert is_loopback(host)
    assert tokens_for(host, None) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "shop.example", ""])
def test_elsewhere_there_must_be_tokens(host: str, file: Path) -> None:
    with pytest.raises(InputError, match="can be reached from other machines"):
        tokens_for(host, None)
    assert tokens_for(host, file) is not None


def test_tokens_that_are_given_count_on_loopback_too(file: Path) -> None:
    assert tokens_for("127.0.0.1", file) is not None


async def test_a_token_lets_through_what_its_role_may(tmp_path: Path, file: Path) -> None:
    codes = {401: "UNAUTHORIZED", 403: "FORBIDDEN"}
    async with api_over(tmp_path / "store", tokens=Tokens(file)) as api:
        for method, path, token, status in (
            ("GET", RUNS, None, 401),
            ("GET", RUNS, "wrong", 401),
            ("GET", RUNS, READ, 200),
            ("GET", RUNS, PUBLISH, 200),
            ("GET", "/openapi.json", None, 401),
            ("GET", "/metrics", None, 401),
            ("GET", "/metrics", READ, 200),
            ("GET", "/health/live", None, 200),
            ("GET", "/health/ready", None, 503),
            ("POST", RUNS, READ, 403),
            ("POST", RUNS, PUBLISH, 415),
            ("POST", "/runs", READ, 403),
            ("PUT", f"{RUNS}/attachments/{'0' * 64}", None, 401),
            ("PUT", f"{RUNS}/attachments/{'0' * 64}", READ, 403),
            ("PUT", f"{RUNS}/attachments/{'0' * 64}", PUBLISH, 422),
            ("DELETE", RUNS, READ, 403),
            ("GET", "/nothing", None, 401),
        ):
            headers = {} if token is None else {"Authorization": f"Bearer {token}"}
            answer = await api.http.request(method, path, headers=headers)
            assert answer.status_code == status, (method, path, token)
            if status in codes:
                assert answer.json()["error"] == codes[status]
            assert ("www-authenticate" in answer.headers) is (status == 401)


async def test_another_authorization_is_none(tmp_path: Path, file: Path) -> None:
    async with api_over(tmp_path / "store", tokens=Tokens(file)) as api:
        for header in ("Basic eDp5", PUBLISH, "Bearer", "Bearer  ", ""):
            assert (await api.get(Authorization=header)).status_code == 401, header
