"""Evidence about a run: gathered whole, or refused with the reason."""

import os
import stat
import subprocess
import zipfile
from pathlib import Path

import pytest

from pipeline.disk.contents import disk_contents
from pipeline.errors import InputError, IntegrityError, NotFoundError, StoreError
from pipeline.evidence.bundle import write_evidence
from pipeline.evidence.evidence import RunEvidence
from pipeline.evidence.gather import Trusted, gather_evidence
from pipeline.ledger.reader import StoreLogs
from pipeline.ledger.tlog.checkpoints import Checkpoint
from pipeline.storage.attachments import OpenBlob
from pipeline.storage.reader import open_reader
from tests.builders import advisory_request, attachment, red_request, run_request, sha256
from tests.evidence.proven_stores import (
    REQUESTS,
    SHARED,
    UPLOADED,
    change,
    go_on,
    logs,
    proven_store,
    upload,
)
from tests.evidence.verifier.bundles import make_bundle, members
from tests.ledger.ledgers import SIGNER, damage
from tests.ledger.tlog.signers import signer
from tests.storage.stores import change_index, judged_record, opened

ARTIFACT = "runs/2025-12-18/saw_1.json"
LINK = "runs/2025-12-18/saw_1_advisory_adv_1.json"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return proven_store(tmp_path / "store")


def gathered(root: Path, run_id: str = "saw_1", trusted: Trusted | None = None) -> RunEvidence:
    reader = open_reader(root)
    try:
        return gather_evidence(reader, logs(root), run_id, trusted)
    finally:
        reader.close()


def states(root: Path, run_id: str) -> dict[str, str]:
    return {each.filename: each.state for each in gathered(root, run_id).attachments}


def test_a_bundle_has_the_files_of_the_run_and_their_proofs(root: Path, tmp_path: Path) -> None:
    files = members(make_bundle(root, tmp_path / "b.zip"))
    assert files[f"files/{ARTIFACT}"] == (root / ARTIFACT).read_bytes()
    assert files[f"files/{LINK}"] == (root / LINK).read_bytes()
    assert {name for name in files if name.startswith("records/")} == {
        f"records/{name}.{end}"
        for name in ("run", "advisory-1", "advisory-2")
        for end in ("leaf", "tlog-proof")
    }
    assert sum(name.startswith("files/attachments/") for name in files) == 2
    assert files["vkeys.txt"].decode() == f"{SIGNER.key}\n"


def test_the_same_store_and_question_give_the_same_bytes(root: Path, tmp_path: Path) -> None:
    other = proven_store(tmp_path / "other", size=1)
    os.utime(other / ARTIFACT, (0, 0))
    first = make_bundle(root, tmp_path / "1.zip")
    assert first.read_bytes() == make_bundle(other, tmp_path / "2.zip").read_bytes()
    with zipfile.ZipFile(first) as archive:
        for member in archive.infolist():
            assert member.date_time == (1980, 1, 1, 0, 0, 0)
            assert member.compress_type == zipfile.ZIP_STORED
            assert stat.S_IMODE(member.external_attr >> 16) == 0o444
            assert member.create_system == 3


def test_sha256sum_checks_the_files_of_a_bundle(root: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(make_bundle(root, tmp_path / "b.zip")) as archive:
        archive.extractall(tmp_path / "b")
    done = subprocess.run(
        ["sha256sum", "--strict", "-c", "SHA256SUMS"],
        cwd=tmp_path / "b",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.count(": OK\n") == len(archive.namelist()) - 1


def test_a_missing_upload_is_named_and_no_obstacle(root: Path, tmp_path: Path) -> None:
    assert states(root, "rosette_1") == {"part.geo": "missing"}
    files = members(make_bundle(root, tmp_path / "b.zip", "rosette_1"))
    assert f"    missing  {sha256(UPLOADED)}  geometry\n" in files["README.txt"].decode()
    upload(root)
    assert states(root, "rosette_1") == {"part.geo": "included"}


def test_a_damaged_attachment_is_refused(root: Path) -> None:
    damage(root / f"attachments/{sha256(SHARED)[:2]}/{sha256(SHARED)[2:4]}/{sha256(SHARED)}")
    with pytest.raises(IntegrityError, match="to have the SHA-256 that is its name"):
        gathered(root)


def test_what_a_verdict_withholds_is_no_part_of_it_for_the_sake_of_a_link(tmp_path: Path) -> None:
    gcode = b"G1 X3\n"
    withheld = attachment(gcode, kind="gcode", filename="job.nc", mime="text/plain")
    root = proven_store(
        tmp_path / "store",
        requests=[(0, red_request(run_id="red", attachments=[withheld]))],
        advisories=[(0, advisory_request(run_id="red", advisory_id="adv", content_text="G1 X3\n"))],
    )
    upload(root, gcode)
    (file,) = gathered(root, "red").attachments
    assert (file.sha256, file.state, file.excerpt) == (sha256(gcode), "withheld", None)
    files = members(make_bundle(root, tmp_path / "b.zip", "red"))
    assert gcode not in b"".join(files.values())
    assert f"withheld  {sha256(gcode)}" in files["README.txt"].decode()


def test_the_whole_request_in_the_quarantine_is_no_part_of_it(tmp_path: Path) -> None:
    request = red_request(run_id="red", request={"operation": "rip", "api_key": "hunter2"})
    root = proven_store(tmp_path / "store", requests=[(0, request)], advisories=[])
    assert b"hunter2" in b"".join(p.read_bytes() for p in (root / "quarantine").rglob("*/*/*"))
    files = members(make_bundle(root, tmp_path / "b.zip", "red"))
    assert b"hunter2" not in b"".join(files.values())
    assert "it holds what was redacted" in files["README.txt"].decode()


# Refused.


def test_an_unknown_run_is_not_found(root: Path) -> None:
    for run_id in ("nobody", "saw_1_advisory_adv_1", "../store", ""):
        with pytest.raises(NotFoundError):
            gathered(root, run_id)


def test_a_run_that_the_ledger_knows_alone_is_a_fault_and_not_unknown(root: Path) -> None:
    change_index(root, "DELETE FROM runs WHERE run_id = 'saw_1'")
    with pytest.raises(IntegrityError, match="has a leaf of the run saw_1, the index does not"):
        gathered(root)


def test_a_run_without_a_leaf_is_refused(root: Path) -> None:
    with opened(root) as store:
        store.commit([judged_record(run_request(run_id="unlogged"), 99)])
    with pytest.raises(IntegrityError, match="The run unlogged has no leaf in the ledger"):
        gathered(root, "unlogged")


def test_a_changed_artifact_is_refused(root: Path) -> None:
    change(root / ARTIFACT, b'"operator":"ana"', b'"operator":"eva"')
    with pytest.raises(IntegrityError, match="ARTIFACT_CORRUPT"):
        gathered(root)


def test_an_artifact_changed_together_with_its_row_differs_from_its_leaf(root: Path) -> None:
    before = sha256((root / ARTIFACT).read_bytes())
    change(root / ARTIFACT, b'"operator":"ana"', b'"operator":"eva"')
    after = sha256((root / ARTIFACT).read_bytes())
    change_index(root, "UPDATE runs SET artifact_sha256 = ? WHERE run_id = 'saw_1'", after)
    sentence = (
        f"Expected {ARTIFACT} with SHA-256 {before}, as the leaf of saw_1 says, found {ARTIFACT} "
        f"with {after}."
    )
    with pytest.raises(IntegrityError, match=sentence):
        gathered(root)


def test_a_changed_link_is_refused_also_with_its_row(root: Path) -> None:
    change(root / LINK, b"Why this", b"Why that")
    with pytest.raises(IntegrityError, match=f"Expected {LINK} to have SHA-256"):
        gathered(root)
    after = sha256((root / LINK).read_bytes())
    change_index(root, "UPDATE advisories SET link_sha256 = ? WHERE advisory_id = 'adv_1'", after)
    with pytest.raises(IntegrityError, match=f"Expected {LINK} with SHA-256 .* as its leaf says"):
        gathered(root)


def test_a_link_without_a_leaf_is_refused(root: Path) -> None:
    change_index(root, "UPDATE advisories SET advisory_id = 'adv_9' WHERE advisory_id = 'adv_3'")
    with pytest.raises(IntegrityError, match=r"adv_3\.json has no leaf in the ledger"):
        gathered(root)


def test_a_log_of_another_key_is_refused(root: Path) -> None:
    reader = open_reader(root)
    other = StoreLogs(disk_contents(root), [signer(SIGNER.name, seed=2).key])
    with pytest.raises(IntegrityError, match="expected a signature of"):
        gather_evidence(reader, other, "saw_1")
    reader.close()


def test_a_damaged_leaf_is_refused(root: Path) -> None:
    damage(next((root / "ledger/1/rmos.runs.requests-0/tile/entries").rglob("*/*")), 60)
    with pytest.raises(IntegrityError, match="is not as it was written"):
        gathered(root)


def trusted(root: Path, size_change: int = 0) -> dict[str, Checkpoint]:
    found = {each.checkpoint.origin: each.checkpoint for each in logs(root).open_all()}
    return {
        origin: Checkpoint(origin, each.size + size_change, each.root)
        for origin, each in found.items()
    }


def test_trusted_checkpoints_bring_their_proofs(root: Path, tmp_path: Path) -> None:
    before = trusted(root)
    go_on(root, requests=[(0, run_request(run_id="later"))], start=4)
    files = members(make_bundle(root, tmp_path / "b.zip", trusted=before))
    assert files["records/run.consistency"].startswith(b"old 4\n")
    assert files["records/advisory-1.consistency"].startswith(b"old 5\n\n")
    assert files["records/run.consistency"].endswith(
        files["records/run.tlog-proof"].partition(b"\n\n")[2]
    )


def test_a_log_that_does_not_begin_with_a_trusted_checkpoint_is_refused(root: Path) -> None:
    with pytest.raises(IntegrityError, match="expected at least 5 leaves, found 4"):
        gathered(root, trusted=trusted(root, 1))
    with pytest.raises(IntegrityError, match="expected the root"):
        gathered(root, trusted=trusted(root, -1))


def test_a_log_without_a_trusted_checkpoint_has_no_such_proof(root: Path) -> None:
    assert gathered(root, trusted={}).run.consistency is None


# Where the index does not say which record made a run.


def test_a_row_that_nothing_explains_is_no_evidence(root: Path) -> None:
    """The way out is `index rebuild`, which finds the source in the leaf."""
    assert len(gathered(root).files) == 3
    change_index(root, "UPDATE advisories SET source_offset = NULL")
    assert len(gathered(root).files) == 1
    change_index(root, "UPDATE runs SET source_offset = NULL")
    with pytest.raises(IntegrityError, match="RUN_UNEXPLAINED"):
        gathered(root)


def test_the_leaf_is_found_where_the_source_is_that_of_a_later_record(root: Path) -> None:
    before = gathered(root)
    for offset in (2, 3, 77):
        change_index(root, f"UPDATE runs SET source_offset = {offset} WHERE run_id = 'saw_1'")
        assert gathered(root) == before
    change_index(root, "UPDATE runs SET source_epoch = 9 WHERE run_id = 'saw_1'")
    assert gathered(root) == before


# The file that is written.


def test_a_file_that_is_there_is_never_overwritten(root: Path, tmp_path: Path) -> None:
    (tmp_path / "b.zip").write_text("mine")
    with pytest.raises(InputError, match="cannot be written: File exists; name a new file"):
        make_bundle(root, tmp_path / "b.zip")
    assert (tmp_path / "b.zip").read_text() == "mine"


def test_a_bundle_that_fails_half_way_is_not_there(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: OpenBlob, offset: int) -> bytes:
        del self, offset
        raise OSError(5, "Input/output error")

    reader = open_reader(root)
    evidence = gathered(root)
    monkeypatch.setattr(OpenBlob, "read", fail)
    with pytest.raises(StoreError, match=r"cannot be read from the store: Input/output error"):
        write_evidence(tmp_path / "b.zip", evidence, reader.attachments)
    assert not (tmp_path / "b.zip").exists()
    reader.close()


def test_there_is_evidence_of_every_run(root: Path) -> None:
    runs = {request["run_id"] for _, request in REQUESTS}
    for run_id in runs:
        assert gathered(root, run_id).run_id == run_id
    assert len(runs) == 4
