"""What works on the disk of one host only refuses a store in a bucket, with status 2."""

import pytest

from pipeline.cli.one_host import WORKS_IN_A_BUCKET
from tests.cli.command_line import CommandLine
from tests.docs.tables import commands_table

STORE_URL = "s3://shop/rmos"
INDEX_URL = "postgresql://rmos@db.example/rmos"
REFUSED = (("demo",), ("up",), ("migrate", "status"), ("broker", "status"))


@pytest.fixture
def shared(rmos: CommandLine, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    monkeypatch.delenv("RMOS_DATA_DIR")
    rmos.set("RMOS_STORE_URL", STORE_URL)
    rmos.set("RMOS_INDEX_URL", INDEX_URL)
    return rmos


@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_a_command_that_needs_a_disk_refuses_a_bucket(
    shared: CommandLine, words: tuple[str, ...]
) -> None:
    done = shared(*words)
    assert done.status == 2, done.err
    assert done.sentence.startswith(f"rmos {words[0]}")
    assert done.sentence.endswith(
        "works on the disk of one host only, and RMOS_STORE_URL names a bucket."
    )


def test_what_is_said_to_work_is_a_command() -> None:
    table = commands_table()
    # Former names are hidden; a replay without another word verifies.
    for name in WORKS_IN_A_BUCKET - {"worker advise", "ledger sums", "replay"}:
        assert f"| `rmos {name}` |" in table, name


@pytest.mark.parametrize(
    ("given", "missing"),
    [("RMOS_STORE_URL", "RMOS_INDEX_URL"), ("RMOS_INDEX_URL", "RMOS_STORE_URL")],
)
def test_half_a_store_is_refused(
    shared: CommandLine, monkeypatch: pytest.MonkeyPatch, given: str, missing: str
) -> None:
    monkeypatch.delenv(missing)
    done = shared("runs", "list")
    assert (done.status, done.sentence) == (
        2,
        f"{given} is set and {missing} is not: set both, or none of them.",
    )


def test_two_stores_are_refused(shared: CommandLine) -> None:
    shared.set("RMOS_DATA_DIR", "elsewhere")
    done = shared("runs", "list")
    assert done.status == 2
    assert done.sentence.startswith("RMOS_DATA_DIR and RMOS_STORE_URL name two stores:")
    done = shared("runs", "list", "--data-dir", "elsewhere")
    assert done.sentence.startswith("--data-dir and RMOS_STORE_URL name two stores: leave out --d")


def test_v1_mode_is_refused(shared: CommandLine) -> None:
    shared.set("RMOS_RUNS_V2_ENABLED", "false")
    done = shared("worker", "persist")
    assert done.status == 2
    assert done.sentence.startswith("v1 mode (RMOS_RUNS_V2_ENABLED) works on the disk of one host")


def test_a_password_in_a_url_is_not_printed(shared: CommandLine) -> None:
    shared.set("RMOS_INDEX_URL", "postgresql://rmos:hidden@db.example/rmos")
    assert "hidden" not in shared("settings").text
