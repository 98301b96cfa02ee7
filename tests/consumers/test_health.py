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
        with urllib.request.urlopen(f"http://{server.address}/health/ready", timeout=5) as answer:
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
    assert time.monotonic() - begun < 5


def test_the_patience_with_a_client_is_shorter_than_that_of_a_probe() -> None:
    assert health._Quiet.timeout == health.PATIENCE_SECONDS < 3
