"""Stored bytes never change with a newer program.

Each `NAME.request.json` holds the exact bytes of a record's value, `NAME.artifact.json` those of
the file that it makes; `manifest.json` has paths and hashes. A difference means that a run stored
by an earlier version would be rendered with other bytes: that is a defect, not a reason to write
the files anew. Where it is meant, before a version is published, write them by

    python -m tests.golden.regenerate

and read the difference line by line. The second half of this file is another implementation of
the canonical rule and of every hash, with the standard library alone.
"""

import hashlib
import json
from typing import Any

import pytest

from tests.golden.large_gcode import LARGE_GCODE_MARK, large_gcode
from tests.golden.regenerate import FOLDER, MANIFEST, judge, manifest_entry

ENTRIES: dict[str, dict[str, Any]] = json.loads(MANIFEST.read_text())


def request_bytes(name: str) -> bytes:
    return (FOLDER / f"{name}.request.json").read_bytes()


def artifact_bytes(name: str) -> bytes:
    return (FOLDER / f"{name}.artifact.json").read_bytes()


def test_every_golden_file_is_in_the_manifest() -> None:
    files = {path.name for path in FOLDER.glob("*.json")} - {MANIFEST.name}
    names = {f"{name}.{part}.json" for name in ENTRIES for part in ("request", "artifact")}
    assert files == names
    assert len(ENTRIES) == 17


@pytest.mark.parametrize("name", ENTRIES)
def test_a_run_is_rendered_with_the_bytes_paths_and_hashes_that_were_stored(name: str) -> None:
    check_bytes(name)
    check_by_another_implementation(name)
    check_path(name)
    check_hash_of_request(name)
    check_hashes(name)
    check_blobs(name)


def check_bytes(name: str) -> None:
    run = judge(request_bytes(name))
    assert run.built.content == artifact_bytes(name)
    assert manifest_entry(run) == ENTRIES[name]


def test_the_manifest_has_every_status_and_risk() -> None:
    assert {entry["status"] for entry in ENTRIES.values()} == {"OK", "BLOCKED", "ERROR"}
    assert {entry["risk_level"] for entry in ENTRIES.values()} == {
        *("GREEN", "YELLOW", "RED", "UNKNOWN", "ERROR")
    }


# Another implementation, of the standard library alone.


def canonical(value: Any) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def check_by_another_implementation(name: str) -> None:
    stored = artifact_bytes(name)
    assert canonical(json.loads(stored)) == stored
    assert sha256(stored) == ENTRIES[name]["sha256"]


def check_path(name: str) -> None:
    """The path is made of the file alone."""
    document = json.loads(artifact_bytes(name))
    date = document["created_at_utc"][:10]
    assert ENTRIES[name]["path"] == f"runs/{date}/{document['run_id']}.json"


def check_hash_of_request(name: str) -> None:
    """The hash of the request is that of its canonical body."""
    body = json.loads(request_bytes(name))
    if body.get("outputs") and body["outputs"].get("gcode_text") == LARGE_GCODE_MARK:
        body["outputs"]["gcode_text"] = large_gcode()
    document = json.loads(artifact_bytes(name))
    expected = sha256(canonical(body))
    assert document["provenance"]["request_sha256"] == expected
    assert ENTRIES[name]["request_sha256"] == expected
    is_whole = document["status"] == "OK" and "withheld" not in document["provenance"]
    assert ENTRIES[name]["quarantined"] == (None if is_whole else expected)


def check_hashes(name: str) -> None:
    """Every hash can be computed from the file and its attachments."""
    document = json.loads(artifact_bytes(name))
    outputs = document["outputs"]
    computed = {"feasibility_sha256": sha256(canonical(document["feasibility"]))}
    if "toolpaths" in outputs:
        computed["toolpaths_sha256"] = sha256(canonical(outputs["toolpaths"]))
    if "opplan_json" in outputs:
        computed["opplan_sha256"] = sha256(canonical(outputs["opplan_json"]))
    if "gcode_text" in outputs:
        computed["gcode_sha256"] = sha256(outputs["gcode_text"].encode())
    if outputs.get("gcode_path", "").startswith("attachments/"):
        blob = large_gcode().encode()
        computed["gcode_sha256"] = sha256(blob)
        assert outputs["gcode_path"].endswith(sha256(blob))
        assert document["attachments"][-1]["size_bytes"] == len(blob)
    assert document["hashes"] == computed


def test_the_large_gcode_is_above_the_limit_and_became_an_attachment() -> None:
    document = json.loads(artifact_bytes("yellow-large-gcode"))
    assert len(large_gcode().encode()) > 204_800
    assert [ref["kind"] for ref in document["attachments"]] == ["gcode"]
    assert ENTRIES["yellow-large-gcode"]["blobs"] == [sha256(large_gcode().encode())]


def check_blobs(name: str) -> None:
    """Every blob is named by the file."""
    document = json.loads(artifact_bytes(name))
    listed = {attachment["sha256"] for attachment in document["attachments"]}
    assert set(ENTRIES[name]["blobs"]) <= listed
