"""`rmos store check` asks a bucket, prints what each question got, and exits by it."""

import sys
from collections.abc import Iterator

import pytest

from pipeline.bucket import probe
from tests.bucket.servers import BUCKET, point_at
from tests.bucket.small_s3 import SmallS3, serving
from tests.cli.command_line import CommandLine

CHECK = ("store", "check", "--url", f"s3://{BUCKET}/rmos")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallS3]:
    s3 = SmallS3()
    with serving(s3) as address:
        point_at(monkeypatch, address)
        yield s3


def test_a_bucket_that_holds_is_shown_question_by_question(
    rmos: CommandLine, small: SmallS3
) -> None:
    done = rmos(*CHECK)
    assert (done.status, done.err) == (0, "")
    _, *lines = [line.split("\t") for line in done.text.splitlines()]
    assert [(line[0], line[2]) for line in lines] == [(each, "holds") for each in probe.QUESTIONS]
    assert small.objects == {}


def test_a_bucket_that_fails_is_refused_by_name(rmos: CommandLine, small: SmallS3) -> None:
    small.faults |= {"swap on nothing", "lists late"}
    done = rmos(*CHECK, "--json")
    assert done.status == 6
    assert done.err == (
        f"Error: The bucket s3://{BUCKET}/rmos cannot keep a store, as it fails: a swap on "
        "nothing, list after write.\n"
    )
    assert done.document["url"] == f"s3://{BUCKET}/rmos"
    assert [each["question"] for each in done.document["questions"]] == list(probe.QUESTIONS)
    assert {
        "question": "a swap on nothing",
        "got": "it took a swap where there is no object",
        "holds": False,
    } in done.document["questions"]


@pytest.mark.parametrize(
    "url",
    ["ftp://shop/rmos", "s3://", "shop/rmos", "s3://Shop", "s3://shop//rmos", "s3://shop/a/../b"],
)
def test_what_is_no_url_of_a_bucket_is_refused(rmos: CommandLine, url: str) -> None:
    done = rmos("store", "check", "--url", url)
    assert (done.status, done.sentence) == (
        2,
        f"Expected the URL of a bucket such as s3://shop/rmos, found {url!r}.",
    )


def test_a_bucket_without_the_extra_is_refused(
    rmos: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "pipeline.bucket.connection", raising=False)
    monkeypatch.setitem(sys.modules, "obstore", None)
    done = rmos(*CHECK)
    assert done.status == 2
    assert done.sentence.startswith("Buckets need the extra scale: pip install '.[scale]'")
