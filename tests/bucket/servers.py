"""Servers of S3 for tests: moto in this process, versitygw where Go can build it."""

import json
import os
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from moto.server import ThreadedMotoServer

from pipeline.broker.local.loopback import free_port
from pipeline.bucket import probe
from pipeline.bucket.url import parse_bucket_url
from pipeline.settings import Settings

VERSITYGW = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"
"""From 1.8.0 on its creates are one step; before, it looked first and stored later."""

BUCKET = "shop"
KEYS = {
    "AWS_ACCESS_KEY_ID": "tests",
    "AWS_SECRET_ACCESS_KEY": "of-tests-alone",
    "AWS_REGION": "us-east-1",
}


ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
"""Those that Azurite is known to have."""
OF_OTHER_CLOUDS = {
    "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
    "AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY,
}


def point_at(patch: pytest.MonkeyPatch, address: str) -> None:
    """Let this process find the server at an address, as an operator does.

    It is on this machine; if it looks before it stores and has not looked by then, it looks later,
    which holds.
    """
    patch.setattr(probe, "LOOKED_SECONDS", 0.2)
    for name in [each for each in os.environ if each.startswith("AWS_")]:
        patch.delenv(name)
    for name, value in {**KEYS, **OF_OTHER_CLOUDS}.items():
        patch.setenv(name, value)
    for name in ("AWS_ENDPOINT_URL", "AZURE_STORAGE_ENDPOINT", "GOOGLE_BASE_URL"):
        patch.setenv(name, address)
    account = {"disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
    patch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", json.dumps({**account, "gcs_base_url": address}))


@contextmanager
def moto_server(host: str = "127.0.0.1") -> Iterator[str]:
    """Run moto with an empty bucket; give its address.

    It answers one request after another. By itself it looks at a condition and stores later: of two
    requests that overlap it takes both now and then, or answers one by 500.
    """
    server = ThreadedMotoServer(host, 0, verbose=False)
    server.start()
    try:
        serving = server._server
        assert serving is not None
        serving.app = in_turns(serving.app)
        host, port = server.get_host_and_port()
        address = f"http://{host}:{port}"
        with pytest.MonkeyPatch.context() as patch:
            point_at(patch, address)
            _make_bucket(address)
        yield address
    finally:
        server.stop()


def in_turns(app: Any) -> Any:
    """Return a WSGI application that answers one request at a time, once its body is there."""
    turn = threading.Lock()

    def answer(environ: Any, start_response: Any) -> list[bytes]:
        if length := environ.get("CONTENT_LENGTH"):
            environ["wsgi.input"] = BytesIO(environ["wsgi.input"].read(int(length)))
        with turn:
            return list(app(environ, start_response))

    return answer


@contextmanager
def versitygw_server(folder: Path, *options: str, versions: Path | None = None) -> Iterator[str]:
    """Run versitygw over a folder, with an empty bucket; give its address. Skips with a reason.

    Args:
        folder: For the bucket.
        options: Of the program.
        versions: Folder for earlier versions, where buckets may keep them.
    """
    program = built_versitygw()
    (folder / BUCKET).mkdir(parents=True)
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "ROOT_ACCESS_KEY": KEYS["AWS_ACCESS_KEY_ID"],
        "ROOT_SECRET_KEY": KEYS["AWS_SECRET_ACCESS_KEY"],
    }
    if versions is not None:
        versions.mkdir()
        environment["VGW_VERSIONING_DIR"] = str(versions)
    arguments = [program, "--port", f"127.0.0.1:{port}", "--quiet", *options, "posix", folder]
    with (folder.parent / "versitygw.log").open("wb") as log:
        process = subprocess.Popen(arguments, env=environment, stdout=log, stderr=log)
    try:
        wait_for(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def built_versitygw() -> Path:
    """Return the program, which Go builds once for this user; skips where it cannot be."""
    return built_by_go(VERSITYGW)


@cache
def built_by_go(package: str) -> Path:
    """Return the program of a package with its version; skips where it cannot be built."""
    name = package.partition("@")[0].rpartition("/")[2]
    go = shutil.which("go")
    if go is None:
        pytest.skip(f"Go is not installed, so {name} cannot be built")
    asked = subprocess.run([go, "env", "GOPATH"], capture_output=True, text=True, check=True)
    # Beside the user's own programs, as he may have another version of it.
    folder = Path(asked.stdout.strip()) / "rmos-tests"
    built = subprocess.run(
        [go, "install", package],
        env={**os.environ, "GOBIN": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode and "dial tcp" in built.stderr:
        pytest.skip(f"{name} cannot be fetched: {built.stderr.strip()[-300:]}")
    assert built.returncode == 0, built.stderr
    return folder / name


def put_key(address: str, key: str) -> None:
    """Make an object under a key that our own client does not make."""
    with closing(s3_client(address)) as client:
        client.put_object(Bucket=BUCKET, Key=key, Body=b"")


@contextmanager
def overwritten(settings: Settings, path: str, content: bytes) -> Iterator[None]:
    """Put other bytes under a path of a store, as who may write the bucket; the first come back."""
    url = parse_bucket_url(settings.store_url or "")
    named = {"Bucket": url.bucket, "Key": f"{url.prefix}/{path}"}
    with closing(s3_client(os.environ["AWS_ENDPOINT_URL"])) as client:
        before = client.get_object(**named)["Body"].read()
        client.put_object(**named, Body=content)
        yield
        client.put_object(**named, Body=before)


def delete_key(address: str, key: str) -> None:
    """Remove an object, as no worker may."""
    with closing(s3_client(address)) as client:
        client.delete_object(Bucket=BUCKET, Key=key)


def _make_bucket(address: str) -> None:
    with closing(s3_client(address)) as client:
        client.create_bucket(Bucket=BUCKET)


def s3_client(
    address: str,
    user: str = KEYS["AWS_ACCESS_KEY_ID"],
    secret: str = KEYS["AWS_SECRET_ACCESS_KEY"],
) -> Any:
    """Return a client of Amazon's for what our own does not do."""
    import boto3  # moto brings it

    return boto3.client(
        "s3",
        endpoint_url=address,
        aws_access_key_id=user,
        aws_secret_access_key=secret,
        region_name=KEYS["AWS_REGION"],
    )


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until the server answers anything at all."""
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
        except urllib.error.HTTPError as error:
            error.close()
            return
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError(f"{process.args!r} does not answer")
