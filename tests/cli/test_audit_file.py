"""`rmos audit file`: single files, without a store, a service or a network."""

import json
from pathlib import Path

import pytest

from pipeline.core.json.canonical import canonical_json
from pipeline.core.layout import attachment_path
from tests.builders import RUN_ID, attachment, document, run_request, sha256
from tests.cli.command_line import CommandLine
from tests.cli.test_runs import flip_bit

DRAWING = b"0\nSECTION\n"
REQUEST = run_request(attachments=[attachment(DRAWING)])
CONTENT = canonical_json(document(REQUEST))


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """Return an artifact in the folder of its date, in no store."""
    path = tmp_path / f"2025-12-18/{RUN_ID}.json"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    return path


def laid_out(root: Path) -> tuple[Path, Path]:
    """Return an artifact and its attachment, laid out as in a store."""
    artifact = root / f"runs/2025-12-18/{RUN_ID}.json"
    blob = root / attachment_path(sha256(DRAWING))
    for path, content in ((artifact, CONTENT), (blob, DRAWING)):
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    return artifact, blob


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_files_as_they_were_written_end_with_0_and_no_data(
    rmos: CommandLine, artifact: Path
) -> None:
    done = rmos("audit", "file", str(artifact), str(artifact))
    assert (done.status, done.text) == (0, "")
    assert done.err == "2 files checked, 0 findings\n"
    assert not rmos.data_dir.exists()


def test_one_changed_hash_ends_with_5_and_is_named(rmos: CommandLine, artifact: Path) -> None:
    artifact.write_bytes(CONTENT.replace(b'"kerf_mm":1.6', b'"kerf_mm":1.7'))
    done = rmos("audit", "file", str(artifact))
    assert done.status == 5
    heading, *rows = [line.split("\t") for line in done.text.splitlines()]
    assert heading == ["severity", "code", "path", "expected", "found"]
    assert [row[:3] for row in rows] == [["error", "HASH_DIFFERS", str(artifact)]]
    assert rows[0][4] == document(REQUEST)["hashes"]["feasibility_sha256"]


def test_json_is_a_line_for_each_finding_and_a_summary(rmos: CommandLine, artifact: Path) -> None:
    moved = artifact.with_name("run_1.json")
    artifact.rename(moved)
    done = rmos("audit", "file", "--json", str(moved))
    assert done.status == 5
    assert lines(done.text) == [
        {
            "code": "PATH_DIFFERS",
            "path": str(moved),
            "expected": "the artifact of runs/2025-12-18/run_1.json",
            "found": f"that of runs/2025-12-18/{RUN_ID}.json",
            "severity": "error",
        },
        {"summary": {"files": 1, "findings": 1}},
    ]


def test_outside_a_folder_of_a_date_a_name_says_nothing(rmos: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "download (1).json"
    path.write_bytes(CONTENT)
    assert rmos("audit", "file", str(path)).status == 0


@pytest.mark.parametrize("content", [b"", b"notes", b"{}", CONTENT + b"\n"])
def test_what_is_no_artifact_is_reported(rmos: CommandLine, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    done = rmos("audit", "file", "--json", str(path))
    assert done.status == 5
    assert lines(done.text)[0]["code"] == "FILE_UNREADABLE"


def test_in_a_store_the_blobs_that_it_names_are_read_too(rmos: CommandLine, tmp_path: Path) -> None:
    artifact, blob = laid_out(tmp_path)
    assert rmos("audit", "file", str(artifact), str(blob)).status == 0
    flip_bit(blob)
    done = rmos("audit", "file", "--json", str(artifact), str(blob))
    assert done.status == 5
    found = [(each["code"], each["path"]) for each in lines(done.text)[:-1]]
    assert found == [
        ("ATTACHMENT_DIFFERS", attachment_path(sha256(DRAWING))),
        ("ATTACHMENT_DIFFERS", str(blob)),
    ]
    blob.unlink()
    done = rmos("audit", "file", "--json", str(artifact))
    assert [each["code"] for each in lines(done.text)[:-1]] == ["ATTACHMENT_MISSING"]


def test_a_blob_is_checked_wherever_it_lies(rmos: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / sha256(DRAWING)
    path.write_bytes(DRAWING)
    assert rmos("audit", "file", str(path)).status == 0
    flip_bit(path)
    assert rmos("audit", "file", str(path)).status == 5


def test_a_link_is_known_by_what_it_says_or_by_its_name(rmos: CommandLine, tmp_path: Path) -> None:
    from pipeline.core.advisories.verdict import JudgedAdvisory, judge_advisory_record
    from tests.builders import advisory_request, record

    judged = judge_advisory_record(*record(advisory_request()))
    assert isinstance(judged, JudgedAdvisory)
    anywhere, placed = tmp_path / "link.json", tmp_path / "2025-12-18"
    anywhere.write_bytes(judged.content)
    placed.mkdir()
    (placed / f"{RUN_ID}_advisory_adv_1.json").write_bytes(judged.content)
    (placed / f"{RUN_ID}_advisory_adv_2.json").write_bytes(judged.content)
    assert rmos("audit", "file", str(anywhere), str(placed / f"{RUN_ID}_advisory_adv_1.json"))
    done = rmos("audit", "file", "--json", str(placed / f"{RUN_ID}_advisory_adv_2.json"))
    assert [each["code"] for each in lines(done.text)[:-1]] == ["PATH_DIFFERS"]


@pytest.mark.parametrize("what", ["missing", "folder", "pipe"])
def test_what_cannot_be_read_ends_with_2_and_one_sentence(
    rmos: CommandLine, tmp_path: Path, what: str
) -> None:
    import os

    path = tmp_path / "x"
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    done = rmos("audit", "file", str(path))
    assert done.status == 2
    reason = {"missing": "there is no such file", "folder": "a folder", "pipe": "a pipe"}[what]
    assert done.sentence == f"{path} cannot be checked: {reason}."


def test_what_a_producer_wrote_does_not_act_on_a_terminal(
    rmos: CommandLine, artifact: Path
) -> None:
    changed = document(REQUEST)
    changed["hashes"]["feasibility_sha256"] = "0" * 64
    changed["feasibility"]["note"] = "\x1b[2J"
    artifact.write_bytes(canonical_json(changed))
    done = rmos("audit", "file", str(artifact))
    assert done.status == 5
    assert b"\x1b" not in done.out


def test_a_part_of_an_audit_is_not_asked_for_by_itself(rmos: CommandLine) -> None:
    done = rmos("audit", "run", "--audit-id", "daily.part-2-of-3")
    assert done.status == 2
    assert "names a part: ask for the audit daily, by its id" in done.err
