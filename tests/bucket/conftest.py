"""Buckets: of moto, of versitygw where it can be built, and of emulators of the other clouds."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from botocore.loaders import JSONFileLoader  # moto brings it

from pipeline.bucket.connection import Connection
from pipeline.bucket.url import parse_bucket_url
from tests.bucket.clouds import azurite_server, gcs_server
from tests.bucket.faulty_proxy import Proxy, standing_before
from tests.bucket.servers import BUCKET, moto_server, point_at, versitygw_server


@pytest.fixture(scope="session", autouse=True)
def descriptions_read_once() -> Iterator[None]:
    """Let all clients of boto3 share its descriptions of services, which take 0.1 s to parse."""
    read = cache(JSONFileLoader().load_file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JSONFileLoader, "load_file", lambda _, path: read(path))
        yield


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    with moto_server() as address:
        yield address


@pytest.fixture(scope="session")
def versitygw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with versitygw_server(tmp_path_factory.mktemp("s3") / "root") as address:
        yield address


@pytest.fixture(scope="session")
def quick_server(request: pytest.FixtureRequest) -> str:
    """Give the address of any server that keeps its promises: of moto where Go is missing.

    moto takes some ms of a processor for a request, and versitygw a tenth.
    """
    try:
        address: str = request.getfixturevalue("versitygw")
    except pytest.skip.Exception:
        address = request.getfixturevalue("moto")
    return address


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with azurite_server(tmp_path_factory.mktemp("azurite")) as address:
        yield address


@pytest.fixture(scope="session")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with gcs_server(tmp_path_factory.mktemp("gcs")) as address:
        yield address


@pytest.fixture(params=["moto", "versitygw"])
def server(request: pytest.FixtureRequest) -> str:
    """Give the address of a server that keeps its promises."""
    address: str = request.getfixturevalue(request.param)
    return address


@pytest.fixture
def connection(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Connection:
    """Give an empty prefix of a bucket."""
    point_at(monkeypatch, server)
    return Connection(parse_bucket_url(f"s3://{BUCKET}/{tmp_path.name}"))


@pytest.fixture
def proxy(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Stand before a server, faithfully at first."""
    with standing_before(server, lambda *_: None) as proxy:
        point_at(monkeypatch, proxy.address)
        yield proxy
