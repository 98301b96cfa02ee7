"""Buckets for tests of what lies on them: the same promises as those of a disk."""

from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from pipeline.bucket.connection import Patience
from pipeline.bucket.files import BucketFiles
from pipeline.bucket.log_store import BucketLogs
from pipeline.bucket.objects import Objects
from pipeline.bucket.url import parse_bucket_url
from pipeline.settings import Settings
from pipeline.storage.store import open_to_write
from tests.bucket.servers import BUCKET, point_at
from tests.conftest import Servers
from tests.e2e.equivalence.outcomes import key_file_in

SCHEMES = {"moto": "s3", "versitygw": "s3", "azurite": "az", "gcs": "gs"}
CLOUDS = [pytest.param(name, marks=pytest.mark.slow) for name in ("azurite", "gcs")]
SERVERS = ["moto", "versitygw", *CLOUDS]
"""Fixtures of servers that keep their promises; `tests/bucket/conftest.py` has them."""

HASTE = Patience(timedelta(milliseconds=1), timedelta(seconds=30), timedelta(seconds=60))
"""Tries again at once, and waits for a server on a busy machine."""

IMPATIENT = Patience(timedelta(milliseconds=1), timedelta(seconds=2), timedelta(seconds=4))
"""For what meets silence alone: a busy machine may be silent for as long."""


def objects_of(request: pytest.FixtureRequest, server: str) -> Objects:
    """Open an empty prefix of a server's bucket, closed with the test."""
    point_at(request.getfixturevalue("monkeypatch"), request.getfixturevalue(server))
    folder: Path = request.getfixturevalue("tmp_path")
    return opened(request, f"{SCHEMES[server]}://{BUCKET}/{folder.name}")


def opened(
    request: pytest.FixtureRequest, url: str = f"s3://{BUCKET}/rmos", patience: Patience = HASTE
) -> Objects:
    """Open a prefix at the server that the environment names, closed with the test."""
    objects = Objects(parse_bucket_url(url), patience)
    request.addfinalizer(objects.close)
    return objects


def shared_settings(folder: Path, servers: Servers) -> Settings:
    """Return the settings of a store of many hosts that is still to be made, with a key's file."""
    return Settings(
        store_url=f"s3://{BUCKET}/{folder.name}",
        index_url=SecretStr(servers.get("18").new_database()),
        ledger_key_file=key_file_in(folder),
    )


def commit(settings: Settings, kind: Any, records: list[Any]) -> None:
    """Commit records as a worker of some kind does."""
    store, ledger = open_to_write(settings)
    with closing(kind(store, ledger=ledger)) as batches:
        batches.commit(records)


def files_and_logs(objects: Objects) -> tuple[BucketFiles, BucketLogs]:
    """Return the files and the logs of a store there."""
    files = BucketFiles(objects)
    return files, BucketLogs(objects, files)


def contents_of(objects: Objects) -> dict[str, bytes]:
    """Return every object by its path."""
    files = BucketFiles(objects)
    return {path: files.read(path, 1 << 30) for path in files.paths_below("")}
