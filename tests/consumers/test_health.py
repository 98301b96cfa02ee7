"""Health over HTTP: answered whatever other clients do."""

import json
import socket
import time
import urllib.request
from collections.abc import Iterator

import pytest

from pipeline.consumers import health
from pipeline.consumers.health import HealthServer


@pytest.fixture
def server() -> Iterator[HealthServer]:
    running = HealthServer("127.0.0.1", 0, lambda: {"all is well": True})
    running.start()
    yield running
    running.stop()


@pytest.mark.parametrize("said", [b"", b"GET /health/li"])
def test_a_client_that_says_nothing_keeps_no_other_waiting(
    server: HealthServer,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    said: bytes,
) -> None:
    monkeypatch.setattr(health._Quiet, "timeout", 0.05)
    host, _, port = server.address.partition(":")
    with socket.create_connection((host, int(port))) as silent:
        silent.sendall(said)
        with urllib.request.urlopen(f"http://{server.address}/health/ready", timeout=60) as answer:
            assert json.load(answer) == {
                "ready": True,
                "checks": {"all is well": True},
                "reasons": [],
            }
    assert capfd.readouterr().err == ""


def test_a_client_that_says_nothing_does_not_keep_the_server_from_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(health._Quiet, "timeout", 0.05)
    server = HealthServer("127.0.0.1", 0, dict)
    server.start()
    host, _, port = server.address.partition(":")
    with socket.create_connection((host, int(port))):
        begun = time.monotonic()
        server.stop()
    assert time.monotonic() - begun < 60


def test_the_patience_with_a_client_is_shorter_than_that_of_a_probe() -> None:
    assert health._Quiet.timeout == health.PATIENCE_SECONDS < 3


def asked(server: HealthServer, request: bytes) -> bytes:
    host, _, port = server.address.partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize("path", [b"/metrics", b"/health/ready"])
def test_another_name_that_leads_here_reads_nothing(server: HealthServer, path: bytes) -> None:
    told = asked(server, b"GET " + path + b" HTTP/1.1\r\nHost: evil.example\r\n\r\n")
    assert told.startswith(b"HTTP/1.0 421 ")
    assert told.endswith(b'{"error": "WRONG_HOST"}')
    for host in (b"localhost:9100", b"LOCALHOST.", b"[::1]:1"):
        told = asked(server, b"GET " + path + b" HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
        assert told.startswith(b"HTTP/1.0 200 ")


def test_beyond_loopback_a_scraper_may_have_any_name_for_it() -> None:
    server = HealthServer("0.0.0.0", 0, dict, allowed_hosts=["runs.example"])
    server.start()
    try:
        request = b"GET /health/live HTTP/1.1\r\nHost: worker-1:9100\r\n\r\n"
        assert asked(server, request).startswith(b"HTTP/1.0 200 ")
    finally:
        server.stop()


@pytest.mark.parametrize("path", ["/metrics", "/health/live", "/nothing"])
def test_head_has_the_head_of_get_and_no_body(server: HealthServer, path: str) -> None:
    head = asked(server, f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    whole = asked(server, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert head.endswith(b"\r\n\r\n")
    assert b"Content-Length: " in head
    assert head.split(b"\r\n")[0] == whole.split(b"\r\n")[0]


def test_another_method_is_refused_with_those_that_are_known(server: HealthServer) -> None:
    told = asked(server, b"POST /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert told.startswith(b"HTTP/1.0 405 ")
    assert b"Allow: GET, HEAD\r\n" in told


def test_a_client_that_sends_its_request_byte_by_byte_is_given_up(
    server: HealthServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "PATIENCE_SECONDS", 0.2)
    host, _, port = server.address.partition(":")
    with socket.create_connection((host, int(port)), timeout=0.02) as connection:
        begun = time.monotonic()
        while time.monotonic() - begun < 60:
            try:
                connection.sendall(b"G")
                if connection.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
    assert time.monotonic() - begun < 60
