"""Buckets for tests of what lies on them: the same promises as those of a disk."""

from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.bucket.connection import Patience
from pipeline.bucket.files import BucketFiles
from pipeline.bucket.log_store import BucketLogs
from pipeline.bucket.objects import Objects
from pipeline.bucket.url import parse_bucket_url
from tests.bucket.servers import BUCKET, point_at

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


def files_and_logs(objects: Objects) -> tuple[BucketFiles, BucketLogs]:
    """Return the files and the logs of a store there."""
    files = BucketFiles(objects)
    return files, BucketLogs(objects, files)


def contents_of(objects: Objects) -> dict[str, bytes]:
    """Return every object by its path."""
    files = BucketFiles(objects)
    return {path: files.read(path, 1 << 30) for path in files.paths_below("")}
