"""`rmos archive create`, `verify`, `restore`, as a shell sees them, and what follows for others."""

import json
import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.audit.audited import flip
from tests.builders import run_request
from tests.cli.command_line import CommandLine
from tests.cli.test_ledger_proofs import key_file
from tests.evidence.proven_stores import REQUESTS, proven_store
from tests.storage.stores import files

DATE = "2025-12-18"
PROGRAM = "G90\nG21\nG1 X10\nM30\n"


@pytest.fixture
def shop(rmos: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """Give the command line over a store with a ledger, its own key, and a folder to work in."""
    own = run_request(run_id="saw_own", outputs={"gcode_text": PROGRAM})
    proven_store(rmos.data_dir, requests=[*REQUESTS, (0, own)])
    rmos.set("RMOS_LEDGER_KEY_FILE", str(key_file(tmp_path / "key.pem")))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return rmos


def archived(shop: CommandLine) -> None:
    done = shop("archive", "create", DATE, "--to", "old.tar")
    assert done.status == 0
    assert done.err.startswith("The tar was read back, and the ledger proves it.")
    removal = done.text.splitlines()[-1]
    subprocess.run(["bash", "-ec", removal], check=True)


def test_create_names_the_removal_and_says_all_in_json(shop: CommandLine) -> None:
    before = files(shop.data_dir)
    done = shop("archive", "create", DATE, "--to", "old.tar", "--json")
    assert done.status == 0
    document = done.document
    assert (document["is_new"], document["tar"]["path"]) == (True, str(Path("old.tar").absolute()))
    (record,) = document["records"]
    assert record == json.loads((shop.data_dir / f"archives/{DATE}.json").read_bytes())
    assert document["removal"].startswith(f"cd {shop.data_dir} && (set -o pipefail; tar -tf ")
    again = shop("archive", "create", DATE, "--to", "old.tar", "--json").document
    assert again == document | {"is_new": False, "shared_attachments": None}
    after = files(shop.data_dir)
    assert {path: after[path] for path in before} == before


def test_every_command_knows_an_archived_run(shop: CommandLine) -> None:
    Path("part.nc").write_text(PROGRAM)
    assert shop("runs", "of-file", "part.nc").status == 0
    proof = shop("ledger", "prove", "saw_1", "--json").document
    archived(shop)
    assert shop("ledger", "prove", "saw_1", "--json").document == proof
    of_file = shop("runs", "of-file", "part.nc")
    assert (of_file.status, "is archived, so its artifact" in of_file.text) == (4, True)
    for command in (("runs", "show"), ("runs", "download"), ("runs", "verify"), ("evidence",)):
        done = shop(*command, "saw_1")
        assert done.status == 3, command
        assert done.sentence.startswith(f"RUN_ARCHIVED: The file runs/{DATE}/saw_1.json is arch")
    (line,) = (each for each in shop("runs", "list").text.splitlines() if "saw_1" in each.split())
    assert line.split()[-1] == "archived"
    assert shop("store", "status", "--json").document["archived_dates"] == 1
    checked = shop("index", "check")
    assert (checked.status, checked.err) == (0, "")
    count = shop("index", "check", "--json").document["archived"]
    assert checked.text.endswith(f" as the index says; {count} files archived\n")
    sums = shop("ledger", "checksums")
    assert (sums.status, DATE in sums.text) == (0, False)
    assert "There is no store root." in sums.err
    assert shop("ledger", "checksums", "--root").status == 3
    summary = json.loads(shop("ledger", "checksums", "--json").text.splitlines()[-1])
    assert summary["summary"]["store_root"] is None
    assert summary["summary"]["archived"] == count
    exported = shop("runs", "export", "--to", "all.zip", "--json")
    assert (exported.status, exported.document["archived"]) == (0, 2)
    with zipfile.ZipFile("all.zip") as bundle:
        assert f"runs/{DATE}/saw_1.json" not in bundle.namelist()
        line = next(
            line for line in bundle.read("runs.csv").decode().splitlines() if "saw_1" in line
        )
    assert "DO NOT CUT: its artifact is archived" in line


def test_verify_and_restore_end_with_5_where_something_differs(shop: CommandLine) -> None:
    root = shop("ledger", "checksums", "--root").text
    archived(shop)
    done = shop("archive", "verify", "old.tar")
    assert (done.status, done.text.startswith("the ledger proves all ")) == (0, True)
    assert done.err == f"It is the tar of the records of {DATE}.\n"
    restored = shop("archive", "restore", "old.tar", "--json")
    assert restored.document == {
        "created": restored.document["created"],
        "same": 0,
        "different": [],
    }
    assert shop("ledger", "checksums", "--root").text == root
    artifact = shop.data_dir / f"runs/{DATE}/saw_1.json"
    flip(artifact, 9)
    done = shop("archive", "restore", "old.tar")
    assert (done.status, f"runs/{DATE}/saw_1.json is there with other bytes" in done.err) == (
        5,
        True,
    )
    content = Path("old.tar").read_bytes()
    flip(Path("old.tar"), content.index(b'"run_id":"saw_1"') * 8)
    done = shop("archive", "verify", "old.tar", "--json")
    assert (done.status, done.document["ok"]) == (5, False)
    assert {each["member"] for each in done.document["faults"]} > {None}
    done = shop("archive", "restore", "old.tar")
    assert (done.status, done.err.startswith("Error: The ledger does not prove ")) == (5, True)
    assert shop("archive", "verify", "no.tar").status == 2
    assert shop("archive", "create", "2025-12-30", "--to", "none.tar").status == 3
