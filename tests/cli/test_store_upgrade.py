"""`rmos store upgrade` says which scripts a database lacks, and runs them."""

import json

import pytest

from tests.cli.command_line import CommandLine
from tests.conftest import Servers


def test_scripts_are_shown_then_run_then_none_is_left(rmos: CommandLine, servers: Servers) -> None:
    url = servers.get("18").new_database()
    upgrade = ("store", "upgrade", "--index-url", url)
    shown = rmos(*upgrade, "--dry-run")
    assert (shown.status, shown.err) == (0, "")
    assert shown.text.startswith("would run script 1: The tables of the index")
    planned = json.loads(rmos(*upgrade, "--dry-run", "--json").text)
    ran = rmos(*upgrade)
    assert ran.text == shown.text.replace("would run", "ran")
    assert rmos(*upgrade).text.endswith("has all scripts of this version\n")
    left = json.loads(rmos(*upgrade, "--json").text)
    assert left == planned | {"scripts": [], "dry_run": False}


@pytest.mark.parametrize(
    ("url", "status", "said"),
    [
        ("mysql://somewhere", 2, "Expected the URL of a database"),
        ("postgresql://rmos:secret@/x?host=/nowhere", 6, "does not answer"),
    ],
)
def test_what_is_no_database_is_refused_in_one_sentence(
    rmos: CommandLine, url: str, status: int, said: str
) -> None:
    pytest.importorskip("psycopg", reason="the extra scale is not installed")
    done = rmos("store", "upgrade", "--index-url", url)
    assert done.status == status
    assert done.err.startswith("Error: ")
    assert said in done.err
    assert "secret" not in done.err
