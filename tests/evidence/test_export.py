"""An export: the files of the store under their paths, and nothing that must not leave it."""

import csv
import io
import os
import re
import subprocess
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InputError, IntegrityError, NotFoundError, StoreError
from pipeline.evidence import export
from pipeline.evidence.export import ExportReport, export_runs
from pipeline.storage.attachments import OpenBlob
from pipeline.storage.reader import open_reader
from schemas.run_filter import RunFilter
from tests.builders import advisory_request, attachment, attachment_ref, red_request, run_request
from tests.builders import sha256 as sha256_of
from tests.evidence.proven_stores import SHARED, UPLOADED, change, proven_store, upload
from tests.evidence.verifier.bundles import members
from tests.storage.stores import change_index, files, opened

ARTIFACT = "runs/2025-12-18/saw_1.json"
LINK = "runs/2025-12-18/saw_1_advisory_adv_1.json"
PROGRAM = b"G1 X666 (must not leave the store)\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return proven_store(tmp_path / "store")


def exported(root: Path, path: Path, **wanted: Any) -> ExportReport:
    with closing(open_reader(root)) as reader:
        return export_runs(path, reader, RunFilter(**wanted), lambda *_: None)


def table(path: Path) -> dict[str, dict[str, str]]:
    content = members(path)["runs.csv"]
    assert content.startswith(b"\xef\xbb\xbf")
    assert content.count(b"\n") == content.count(b"\r\n")
    rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    assert content.count(b"\n") == len(rows) + 1
    return {row["run_id"]: row for row in rows}


def attachment_path(content: bytes) -> str:
    digest = sha256_of(content)
    return f"attachments/{digest[:2]}/{digest[2:4]}/{digest}"


def test_an_export_has_the_files_of_the_store_under_their_paths(root: Path, tmp_path: Path) -> None:
    report = exported(root, tmp_path / "all.zip")
    found = members(tmp_path / "all.zip")
    stored = files(root)
    taken = {name: content for name, content in found.items() if "/" in name}
    assert taken == {name: stored[name] for name in taken}
    assert {name for name in stored if name.startswith("runs/")} == {
        name for name in taken if name.startswith("runs/")
    }
    assert found.keys() - taken.keys() == {"README.txt", "runs.csv", "SHA256SUMS"}
    assert (report.runs, report.links, report.attachments) == (4, 3, len(taken) - 7)
    assert report.corrupt == []


def test_sha256sum_checks_every_other_file(root: Path, tmp_path: Path) -> None:
    exported(root, tmp_path / "all.zip")
    with zipfile.ZipFile(tmp_path / "all.zip") as bundle:
        bundle.extractall(tmp_path / "out")
    lines = (tmp_path / "out/SHA256SUMS").read_text().splitlines()
    assert len(lines) == len(members(tmp_path / "all.zip")) - 1

    def check() -> int:
        command = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
        return subprocess.run(command, cwd=tmp_path / "out", check=False).returncode

    assert check() == 0
    change(tmp_path / f"out/{ARTIFACT}", b"saw", b"sew")
    assert check() == 1


def test_the_same_store_and_question_give_the_same_bytes(root: Path, tmp_path: Path) -> None:
    other = proven_store(tmp_path / "other", size=1)
    os.utime(other / ARTIFACT, (0, 0))
    exported(root, tmp_path / "1.zip", tool_id_prefix="saw")
    exported(other, tmp_path / "2.zip", tool_id_prefix="saw")
    assert (tmp_path / "1.zip").read_bytes() == (tmp_path / "2.zip").read_bytes()


def test_an_export_has_the_runs_that_fit_of_every_page(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "LARGEST_LIMIT", 1)
    exported(root, tmp_path / "all.zip", limit=1)
    assert list(table(tmp_path / "all.zip")) == ["rosette_1", "router_1", "saw_red", "saw_1"]
    exported(root, tmp_path / "day.zip", date_from="2025-12-18", date_to="2025-12-18", mode="saw")
    assert list(table(tmp_path / "day.zip")) == ["saw_1"]
    with pytest.raises(NotFoundError, match="No run fits"):
        exported(root, tmp_path / "none.zip", date_to="2001-01-01")
    assert not (tmp_path / "none.zip").exists()


def test_an_attachment_of_several_runs_is_there_once(root: Path, tmp_path: Path) -> None:
    exported(root, tmp_path / "all.zip")
    with zipfile.ZipFile(tmp_path / "all.zip") as bundle:
        assert bundle.namelist().count(attachment_path(SHARED)) == 1


def test_an_attachment_that_is_missing_is_named_and_no_fault(root: Path, tmp_path: Path) -> None:
    assert exported(root, tmp_path / "without.zip").missing == 1
    missing = f"missing {attachment_path(UPLOADED)}"
    assert table(tmp_path / "without.zip")["rosette_1"]["not_exported"] == missing
    upload(root)
    assert exported(root, tmp_path / "with.zip").missing == 0
    assert members(tmp_path / "with.zip")[attachment_path(UPLOADED)] == UPLOADED
    assert table(tmp_path / "with.zip")["rosette_1"]["not_exported"] == ""


def test_nothing_withheld_is_exported_though_a_link_names_it(tmp_path: Path) -> None:
    blocked = red_request(
        run_id="red",
        outputs={"gcode_text": PROGRAM.decode() + "M30"},
        attachments=[attachment(PROGRAM, kind="gcode"), attachment(b"a drawing")],
    )
    root = proven_store(
        tmp_path / "store",
        requests=[(0, blocked), (0, run_request(run_id="ok"))],
        advisories=[
            (
                0,
                advisory_request(
                    run_id=run_id, content_text=None, content_sha256=sha256_of(PROGRAM)
                ),
            )
            for run_id in ("red", "ok")
        ],
    )
    report = exported(root, tmp_path / "all.zip")
    assert (report.runs, report.links, report.withheld) == (2, 2, 2)
    found = members(tmp_path / "all.zip")
    assert [name for name, content in found.items() if b"X666" in content] == []
    assert found[attachment_path(b"a drawing")] == b"a drawing"
    assert not any("quarantine" in name for name in found)
    withheld = f"withheld {attachment_path(PROGRAM)}"
    rows = table(tmp_path / "all.zip")
    assert rows["ok"]["not_exported"] == withheld
    assert {
        f"withheld attachments.{sha256_of(PROGRAM)}",
        "withheld outputs.gcode_text",
        withheld,
    } <= set(rows["red"]["not_exported"].split("; "))
    assert rows["red"]["verdict"].startswith("DO NOT CUT: ")


@pytest.mark.parametrize(("names_it", "is_exported"), [(red_request, False), (run_request, True)])
def test_what_another_run_withholds_is_exported_for_a_run_that_may_be_cut_alone(
    tmp_path: Path, names_it: Callable[..., dict[str, Any]], is_exported: bool
) -> None:
    withholds = red_request(run_id="red", attachments=[attachment(PROGRAM, kind="gcode")])
    other = names_it(run_id="other", attachments=[attachment_ref(PROGRAM, kind="debug")])
    root = proven_store(tmp_path / "store", requests=[(0, withholds), (0, other)], advisories=[])
    upload(root, PROGRAM)
    report = exported(root, tmp_path / "all.zip")
    assert (attachment_path(PROGRAM) in members(tmp_path / "all.zip")) == is_exported
    assert report.withheld == (not is_exported)


DAMAGES = {
    "artifact changed": lambda root: change(root / ARTIFACT, b'"saw"', b'"sew"'),
    "artifact missing": lambda root: (root / ARTIFACT).unlink(),
    "index changed": lambda root: change_index(
        root, "UPDATE runs SET block_reason = 'none' WHERE run_id = 'saw_1'"
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_corrupt_run_is_named_and_left_out_and_the_others_are_not(
    root: Path, tmp_path: Path, damage: str
) -> None:
    DAMAGES[damage](root)
    report = exported(root, tmp_path / "all.zip")
    assert [each.run_id for each in report.corrupt] == ["saw_1"]
    assert "ARTIFACT_CORRUPT" in report.corrupt[0].reason
    found = members(tmp_path / "all.zip")
    assert not any("saw_1" in name for name in found)
    row = table(tmp_path / "all.zip")["saw_1"]
    assert row["verdict"].startswith("DO NOT CUT")
    assert "ARTIFACT_CORRUPT" in row["not_exported"]
    assert (row["path"], row["status"]) == ("", "")
    assert report.runs == 3
    assert "runs/2025-12-19/saw_red.json" in found


def test_a_corrupt_link_or_attachment_is_left_out_and_its_run_is_not(
    root: Path, tmp_path: Path
) -> None:
    change(root / LINK, b"run_id", b"run_no")
    change(root / attachment_path(SHARED), b"SECTION", b"sECTION")
    report = exported(root, tmp_path / "all.zip")
    found = members(tmp_path / "all.zip")
    assert {ARTIFACT} == found.keys() & {ARTIFACT, LINK, attachment_path(SHARED)}
    # Both runs name the attachment.
    assert [each.run_id for each in report.corrupt] == ["router_1", "saw_1", "saw_1"]
    assert table(tmp_path / "all.zip")["saw_1"]["not_exported"].split("; ") == [
        f"corrupt {attachment_path(SHARED)}",
        f"corrupt {LINK}",
    ]


def test_an_attachment_that_changes_meanwhile_ends_the_export(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = OpenBlob.check

    def checked(blob: OpenBlob) -> Any:
        found = check(blob)
        path = root / attachment_path(SHARED)
        if blob.sha256 == path.name:
            change(path, b"SECTION", b"sECTION")
        return found

    monkeypatch.setattr(OpenBlob, "check", checked)
    (tmp_path / "out").mkdir()
    with pytest.raises(IntegrityError, match="changed while it was exported"):
        exported(root, tmp_path / "out/all.zip")
    assert os.listdir(tmp_path / "out") == []


def test_a_file_that_is_there_is_never_replaced(root: Path, tmp_path: Path) -> None:
    (tmp_path / "all.zip").write_bytes(b"evidence")
    with pytest.raises(InputError, match="there already"):
        exported(root, tmp_path / "all.zip")
    assert (tmp_path / "all.zip").read_bytes() == b"evidence"
    with pytest.raises(InputError, match="cannot be written"):
        exported(root, tmp_path / "nowhere/all.zip")


def test_a_fault_of_the_disk_leaves_no_file(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_blob: OpenBlob, _offset: int, _limit_bytes: int = 0) -> bytes:
        raise OSError(5, "Input/output error")

    (tmp_path / "out").mkdir()
    monkeypatch.setattr(OpenBlob, "read", fail)
    with pytest.raises(StoreError):
        exported(root, tmp_path / "out/all.zip")
    assert os.listdir(tmp_path / "out") == []


def test_names_in_the_zip_are_the_stores_whatever_a_producer_writes(tmp_path: Path) -> None:
    formula = '=HYPERLINK("http://evil";"x")\u202e'
    hostile = run_request(
        run_id="hostile",
        tool_id=formula,
        machine_id="@SUM(1)",
        attachments=[attachment_ref(b"x", filename="..\\..\\=evil.bat")],
    )
    root = proven_store(tmp_path / "store", requests=[(0, hostile)], advisories=[])
    upload(root, b"x")
    exported(root, tmp_path / "all.zip", tool_id=formula)
    found = members(tmp_path / "all.zip")
    name = re.compile(r"README\.txt|runs\.csv|SHA256SUMS|(runs|attachments)/[A-Za-z0-9._/-]+")
    assert [each for each in found if not name.fullmatch(each)] == []
    assert not any("evil" in each for each in found)
    row = table(tmp_path / "all.zip")["hostile"]
    assert row["tool_id"] == '\'=HYPERLINK("http://evil";"x")\\u202e'
    assert row["machine_id"] == "'@SUM(1)"
    assert b"\\u202e" in found["README.txt"]
    assert "\u202e" not in found["README.txt"].decode()


def test_a_run_that_nobody_vouches_for_is_not_exported(root: Path, tmp_path: Path) -> None:
    change_index(root, "UPDATE runs SET source_offset = NULL WHERE run_id = 'saw_1'")
    exported(root, tmp_path / "all.zip")
    assert "saw_1" not in table(tmp_path / "all.zip")
    assert ARTIFACT not in members(tmp_path / "all.zip")


def test_an_empty_store_gives_no_export(tmp_path: Path) -> None:
    with opened(tmp_path / "store"):
        pass
    with pytest.raises(NotFoundError):
        exported(tmp_path / "store", tmp_path / "all.zip")
