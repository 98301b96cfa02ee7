"""A bucket is asked whether it keeps its word, and one that does not is found out by name."""

from collections.abc import Iterator

import pytest

from pipeline.bucket.connection import Connection
from pipeline.bucket.probe import QUESTIONS, ask_bucket
from pipeline.bucket.url import parse_bucket_url
from pipeline.errors import StoreAwayError, StoreNotReadyError
from tests.bucket.buckets import CLOUDS, HASTE, SCHEMES
from tests.bucket.servers import BUCKET, point_at
from tests.bucket.small_s3 import SmallS3, serving


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallS3]:
    s3 = SmallS3()
    with serving(s3) as address:
        point_at(monkeypatch, address)
        yield s3


def failed(url: str = f"s3://{BUCKET}/rmos") -> dict[str, str]:
    """Return what each question got that the bucket failed."""
    connection = Connection(parse_bucket_url(url), HASTE)
    answers = ask_bucket(connection)
    assert [each.question for each in answers] == list(QUESTIONS)
    return {each.question: each.got for each in answers if not each.holds}


def test_a_bucket_that_keeps_its_word_holds_and_nothing_is_left(connection: Connection) -> None:
    answers = ask_bucket(connection)
    assert [each for each in answers if not each.holds] == []
    assert connection.names("ledger") == ([], [])


@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_emulator_of_another_cloud_holds(
    cloud: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_at(monkeypatch, request.getfixturevalue(cloud))
    assert failed(f"{SCHEMES[cloud]}://{BUCKET}/probe") == {}


def test_the_small_server_holds_as_the_real_ones_do(small: SmallS3) -> None:
    assert failed() == {}
    assert small.objects == {}


def test_an_answer_that_was_lost_is_no_broken_promise(small: SmallS3) -> None:
    """The bucket has what was sent; sent again it is refused, which is no refusal of the first."""
    small.faults.add("answers lost")
    assert failed() == {}


@pytest.mark.parametrize(
    ("fault", "questions"),
    [
        (
            "creates ignored",
            {"create twice": "it took both", "two creates that overlap": "it took both"},
        ),
        ("creates looked at before", {"two creates that overlap": "it took both"}),
        ("swaps looked at before", {"two swaps that overlap": "it took both"}),
        (
            "swaps ignored",
            {
                "two swaps that overlap": "it took both",
                "a stale swap": "it took a swap of a version that was gone",
            },
        ),
        ("swap on nothing", {"a swap on nothing": "it took a swap where there is no object"}),
        ("lists late", {"list after write": "it did not list 1 of 1"}),
    ],
)
def test_a_server_that_breaks_a_promise_is_found_out(
    small: SmallS3, fault: str, questions: dict[str, str]
) -> None:
    small.faults.add(fault)
    assert failed() == questions


def test_a_server_that_knows_no_conditions_is_found_out(small: SmallS3) -> None:
    small.faults.add("conditions unknown")
    found = failed()
    assert set(found) == set(QUESTIONS)
    assert found["create twice"] == "it does not know the condition (501 Not Implemented)"


def test_a_bucket_that_is_not_there_is_named(moto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    point_at(monkeypatch, moto)
    with pytest.raises(StoreNotReadyError, match="There is no bucket at s3://nowhere"):
        failed("s3://nowhere/rmos")


def test_a_server_that_is_not_there_is_no_broken_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    point_at(monkeypatch, "http://127.0.0.1:1")
    with pytest.raises(StoreAwayError, match="does not answer"):
        failed()
