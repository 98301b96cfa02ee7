"""Emulators of the other clouds: Azurite, and fake-gcs-server behind a translator of its PUTs."""

import base64
import hashlib
import hmac
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import pytest

from pipeline.broker.local.loopback import free_port
from tests.bucket.relay import Relay, relaying
from tests.bucket.servers import ACCOUNT, ACCOUNT_KEY, BUCKET, built_by_go, wait_for

AZURITE = "azurite@3.35.0"
"""The last that runs on Node 20."""
AZURITE_BEFORE = "2026-11-01"
"""What it needs is taken as it was on that day."""
FAKE_GCS = "github.com/fsouza/fake-gcs-server@v1.56.1"


@contextmanager
def azurite_server(folder: Path) -> Iterator[str]:
    """Run Azurite with an empty container; give its address. Skips with a reason."""
    program = installed_azurite()
    port = free_port()
    options = ("--inMemoryPersistence", "--silent", "--disableTelemetry", "--skipApiVersionCheck")
    command = ["node", str(program), *options, "--blobPort", str(port)]
    with (folder / "azurite.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        wait_for(port, process)
        address = f"http://127.0.0.1:{port}/{ACCOUNT}"
        _make_container(port)
        yield address
    finally:
        process.kill()
        process.wait()


def installed_azurite() -> Path:
    """Return the program, which npm installs once for this user; skips where it cannot be."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: Azurite runs in Node")
    folder = Path.home() / ".cache" / "rmos-tests" / AZURITE
    program = folder / "node_modules" / ".bin" / "azurite-blob"
    if not program.exists():
        folder.mkdir(parents=True, exist_ok=True)
        install = ("npm", "install", "--prefix", str(folder), "--ignore-scripts", "--no-audit")
        done = subprocess.run(
            [*install, "--no-fund", f"--before={AZURITE_BEFORE}", AZURITE],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode and "network" in done.stderr:
            pytest.skip(f"npm does not reach its registry: {done.stderr.strip()[-300:]}")
        assert done.returncode == 0, done.stderr
    return program


def _make_container(port: int) -> None:
    """Make the container by a request of its own: our client makes none."""
    headers = {
        "x-ms-date": datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT"),
        "x-ms-version": "2021-08-06",
        "Content-Length": "0",
    }
    named = "".join(f"{name}:{headers[name]}\n" for name in ("x-ms-date", "x-ms-version"))
    resource = f"/{ACCOUNT}/{ACCOUNT}/{BUCKET}\nrestype:container"
    text = "PUT" + 12 * "\n" + named + resource
    signed = hmac.new(base64.b64decode(ACCOUNT_KEY), text.encode(), hashlib.sha256)
    headers["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(signed.digest()).decode()}"
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("PUT", f"/{ACCOUNT}/{BUCKET}?restype=container", headers=headers)
    answer = connection.getresponse()
    assert answer.status == 201, answer.read()
    connection.close()


@contextmanager
def gcs_server(folder: Path) -> Iterator[str]:
    """Run fake-gcs-server with an empty bucket; give the address of its translator."""
    program = built_by_go(FAKE_GCS)
    port, outside = free_port(), free_port()
    command = [program, "-backend", "memory", "-scheme", "http", "-host", "127.0.0.1"]
    command += ["-port", str(port), "-public-host", f"127.0.0.1:{outside}"]
    with (folder / "gcs.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    handler = type("Handler", (_Translator,), {"upstream": port})
    try:
        wait_for(port, process)
        _asked(port, "POST", "/storage/v1/b?project=tests", json.dumps({"name": BUCKET}).encode())
        with relaying(handler, outside) as address:
            yield address
    finally:
        process.kill()
        process.wait()


def _asked(
    port: int, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> tuple[int, list[tuple[str, str]], bytes]:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.getheaders(), answer.read()
    finally:
        connection.close()


class _Translator(Relay):
    """Lets fake-gcs-server take a PUT of the XML API, which it has for nothing but signed URLs.

    It becomes an upload of the JSON API, which has the same condition as a parameter.
    (cloud.google.com/storage/docs/request-preconditions; fsouza/fake-gcs-server#331)
    """

    upstream: int

    def handle_any(self) -> None:
        body = self.body()
        path, headers = self.path, dict(self.headers.items())
        method = self.command
        if method == "PUT":
            _, bucket, key = urlsplit(path).path.split("/", 2)
            name = quote(unquote(key), safe="")
            path = f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}"
            if generation := self.headers.get("x-goog-if-generation-match"):
                path += f"&ifGenerationMatch={generation}"
            method = "POST"
        status, answered, content = _asked(self.upstream, method, path, body, headers)
        if self.command == "PUT" and status == 200:
            made = json.loads(content)
            answered = [("ETag", f'"{made["etag"]}"'), ("x-goog-generation", made["generation"])]
            content = b""
        self.answer(status, content, answered)
