"""Host and Origin: in every form that a client may write, and what is of somebody else."""

import pytest

from pipeline.core.http_hosts import KnownHosts, is_loopback, is_same_origin, split_host

AT_LOOPBACK = KnownHosts.of("127.0.0.1", (), asks_tokens=False)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("localhost", ("localhost", "")),
        ("LocalHost:8080", ("localhost", "8080")),
        ("runs.example.:80", ("runs.example", "80")),
        ("[::1]:8080", ("::1", "8080")),
        ("[0:0:0:0:0:0:0:1]", ("::1", "")),
        ("127.0.0.1:", ("127.0.0.1", "")),
        ("::1", None),
        ("[::1", None),
        ("[1.2]", None),
        ("user@localhost", None),
        ("localhost:8080:9", None),
        ("localhost:http", None),
        ("localhost evil", None),
        (".", None),
        ("", None),
    ],
)
def test_a_host_is_split(header: str, expected: tuple[str, str] | None) -> None:
    assert split_host(header) == expected


@pytest.mark.parametrize(
    "header",
    [
        *("localhost", "LOCALHOST:8080", "localhost.", "127.0.0.1:8080", "127.9.9.9"),
        *("[::1]:8080", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]"),
    ],
)
def test_names_of_loopback_are_known(header: str) -> None:
    assert AT_LOOPBACK.has(header)


@pytest.mark.parametrize(
    "header",
    [
        *("evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example"),
        *("10.0.0.1", "[fd00::1]", "localhost@evil.example", "", "127.0.0.1,evil.example"),
        *("0.0.0.0", "[::]"),
    ],
)
def test_any_other_name_is_not(header: str) -> None:
    assert not AT_LOOPBACK.has(header)


def test_a_request_without_a_host_comes_from_no_browser() -> None:
    assert AT_LOOPBACK.has(None)


def test_an_allowed_name_is_known_beside_those_of_loopback() -> None:
    hosts = KnownHosts.of("127.0.0.1", ["runs.example", "[FD00::1]"], asks_tokens=False)
    for header in ("Runs.Example:443", "[fd00:0::1]", "localhost"):
        assert hosts.has(header)
    assert not hosts.has("evil.example")


@pytest.mark.parametrize(("bound", "asks_tokens"), [("0.0.0.0", True), ("127.0.0.1", True)])
def test_where_tokens_are_asked_for_any_name_is_known_unless_some_are_allowed(
    bound: str, asks_tokens: bool
) -> None:
    assert KnownHosts.of(bound, (), asks_tokens=asks_tokens).has("any.example")
    named = KnownHosts.of(bound, ["runs.example"], asks_tokens=asks_tokens)
    assert named.has("runs.example")
    assert not named.has("any.example")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost", "LOCALHOST"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "shop.example", ""])
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("origin", "host", "expected"),
    [
        ("http://localhost:8080", "localhost:8080", True),
        ("http://127.0.0.1", "127.0.0.1:80", True),
        ("https://runs.example", "runs.example", True),
        ("https://runs.example", "Runs.Example:443", True),
        ("http://[::1]:8080", "[::1]:8080", True),
        ("http://localhost:3000", "localhost:8080", False),
        ("http://localhost:8080", "127.0.0.1:8080", False),
        ("https://runs.example", "runs.example:80", False),
        ("null", "localhost", False),
        ("", "localhost", False),
        ("http://localhost:8080", None, False),
        ("http://localhost:8080/x", "localhost:8080", False),
    ],
)
def test_a_page_is_ours_if_it_came_from_where_it_asks(
    origin: str, host: str | None, expected: bool
) -> None:
    assert is_same_origin(origin, host) is expected
