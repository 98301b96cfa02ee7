"""A fault of a bucket: what passes by itself, and what its owner must mend."""

from pathlib import Path

import obstore
import pytest

from pipeline.bucket.connection import Connection
from pipeline.bucket.url import parse_bucket_url
from pipeline.errors import StoreAwayError, StoreNotReadyError
from tests.bucket.servers import BUCKET, point_at, put_key
from tests.bucket.small_s3 import SmallS3, serving


@pytest.fixture
def connection_to_moto(moto: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Connection:
    point_at(monkeypatch, moto)
    return Connection(parse_bucket_url(f"s3://{BUCKET}/{tmp_path.name}"))


def test_a_listing_of_a_bucket_that_is_not_there_names_it(
    moto: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_at(monkeypatch, moto)
    connection = Connection(parse_bucket_url("s3://nowhere/rmos"))
    with (
        pytest.raises(StoreNotReadyError, match="There is no bucket at s3://nowhere/rmos"),
        connection.faults(),
    ):
        connection.names("runs")


def test_a_key_that_is_not_there_is_no_fault(connection: Connection) -> None:
    with pytest.raises(FileNotFoundError), connection.faults():
        obstore.get(connection.store, "nothing")


def test_keys_that_other_programs_make_are_passed_over_or_named(
    moto: str, connection_to_moto: Connection
) -> None:
    connection, prefix = connection_to_moto, connection_to_moto.name.removeprefix(f"s3://{BUCKET}/")
    # A console shows an empty folder so.
    put_key(moto, f"{prefix}/runs/")
    obstore.put(connection.store, "runs/a", b"")
    assert connection.names("runs") == (["runs/a"], [])
    put_key(moto, f"{prefix}/runs//a")
    with (
        pytest.raises(StoreNotReadyError, match="whose key is no path"),
        connection.faults(),
    ):
        connection.names("runs")


@pytest.mark.parametrize(
    ("status", "error", "sentence"),
    [
        (403, StoreNotReadyError, "The bucket s3://shop denies access (403 Forbidden): give"),
        (400, StoreAwayError, "The bucket s3://shop does not answer (400 Bad Request); no"),
    ],
)
def test_what_is_denied_does_not_pass_by_itself(
    monkeypatch: pytest.MonkeyPatch, status: int, error: type[Exception], sentence: str
) -> None:
    with serving(SmallS3(f"always {status}")) as address:
        point_at(monkeypatch, address)
        connection = Connection(parse_bucket_url(f"s3://{BUCKET}"))
        with pytest.raises(error) as raised, connection.faults():
            obstore.put(connection.store, "a", b"1", mode="create")
    assert str(raised.value).startswith(sentence)
