"""Sums of a store: a function of leaves and artifacts, checked by sha256sum itself."""

import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.disk.contents import disk_contents
from pipeline.errors import IntegrityError, StoreNotReadyError
from pipeline.ledger.reader import StoreLogs
from pipeline.ledger.tlog.merkle import EMPTY_ROOT
from pipeline.storage.checksums import checksums_of, store_root
from tests.builders import red_request, sha256
from tests.evidence.proven_stores import (
    LINKED,
    REQUESTS,
    SHARED,
    UPLOADED,
    change,
    logs,
    proven_store,
    upload,
)
from tests.ledger.ledgers import SIGNER, damage
from tests.ledger.tlog.signers import signer
from tests.ledger.tlog.trees import root_by_definition
from tests.storage.stores import make_store

DAYS = ["2025-12-18", "2025-12-19", "2026-01-15", "2026-02-01"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return proven_store(tmp_path / "store")


def path_of(content: bytes) -> str:
    digest = sha256(content)
    return f"attachments/{digest[:2]}/{digest[2:4]}/{digest}"


def paths(lines: list[str]) -> list[str]:
    return sorted(line.split("  ")[1] for line in lines)


def sha256sum_check(root: Path, lines: list[str]) -> subprocess.CompletedProcess[str]:
    given = "".join(f"{line}\n" for line in lines)
    return subprocess.run(
        ["sha256sum", "-c", "--quiet"],
        cwd=root,
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_artifact_link_and_attachment_has_one_line(root: Path) -> None:
    upload(root)
    lines = list(checksums_of(logs(root)))
    stored = [
        path.relative_to(root).as_posix()
        for folder in ("runs", "attachments")
        for path in (root / folder).rglob("*")
        if path.is_file()
    ]
    assert paths(lines) == sorted(stored)
    assert lines == sorted(set(lines))
    assert sha256sum_check(root, lines).returncode == 0


def test_a_day_has_its_runs_their_links_and_what_both_name(root: Path) -> None:
    assert paths(list(checksums_of(logs(root), "2025-12-18"))) == sorted(
        [
            path_of(SHARED),
            path_of(b"The rim speed stays **below** the blade's limit."),
            "runs/2025-12-18/saw_1.json",
            "runs/2025-12-18/saw_1_advisory_adv_1.json",
            "runs/2025-12-18/saw_1_advisory_adv_3.json",
        ]
    )
    assert list(checksums_of(logs(root), "2025-12-20")) == []


def test_the_days_together_are_the_store(root: Path) -> None:
    """A blob that runs of two days name is listed on both, and once in the whole."""
    days = [line for day in DAYS for line in checksums_of(logs(root), day)]
    assert len(days) == len(set(days)) + 1
    assert sorted(set(days)) == list(checksums_of(logs(root)))


def test_the_store_root_is_that_of_the_lines_by_the_definition(root: Path) -> None:
    lines = [line.encode() for line in checksums_of(logs(root))]
    assert store_root(logs(root)) == root_by_definition(lines)


def test_the_store_root_is_the_same_however_the_records_were_batched(tmp_path: Path) -> None:
    roots = {
        store_root(logs(proven_store(tmp_path / str(size), size=size))) for size in (1, 2, 100)
    }
    shuffled = proven_store(tmp_path / "other", requests=sorted(REQUESTS, key=lambda r: -r[0]))
    assert roots == {store_root(logs(shuffled))}


def test_a_link_whose_run_never_came_is_no_part_of_it(tmp_path: Path, root: Path) -> None:
    without = [given for given in LINKED if given[1]["run_id"] != "never_came"]
    assert not any("never_came" in line for line in checksums_of(logs(root)))
    other = proven_store(tmp_path / "other", advisories=without)
    assert store_root(logs(other)) == store_root(logs(root))


def test_a_missing_upload_changes_no_sum_and_sha256sum_names_it(root: Path) -> None:
    """A store that was restored from the topic has no uploads, and the same root."""
    lines = list(checksums_of(logs(root)))
    assert path_of(UPLOADED) in paths(lines)
    done = sha256sum_check(root, lines)
    assert done.returncode == 1
    assert done.stdout == f"{path_of(UPLOADED)}: FAILED open or read\n"
    before = store_root(logs(root))
    upload(root)
    assert store_root(logs(root)) == before


def test_another_run_or_another_byte_is_another_root(tmp_path: Path, root: Path) -> None:
    more = [*REQUESTS, (0, red_request(run_id="one_more"))]
    changed = [(0, red_request(run_id="saw_red", notes="x")), *REQUESTS[2:]]
    fewer = REQUESTS[:-3]
    roots = {store_root(logs(root))} | {
        store_root(logs(proven_store(tmp_path / str(number), requests=requests, advisories=[])))
        for number, requests in enumerate((more, changed, fewer, REQUESTS))
    }
    assert len(roots) == 5


@pytest.mark.parametrize(
    "path", ["runs/2025-12-18/saw_1.json", "runs/2025-12-18/saw_1_advisory_adv_1.json"]
)
def test_a_changed_file_is_named_after_the_lines_of_the_others(root: Path, path: str) -> None:
    upload(root)
    whole = set(checksums_of(logs(root)))
    change(root / path, b'"run_id"', b'"run-id"')
    found: list[str] = []
    with pytest.raises(IntegrityError, match=rf"{path} to have SHA-256 .* not among the sums\.$"):
        found.extend(checksums_of(logs(root)))
    assert set(found) <= whole
    assert path in paths(found)
    assert sha256sum_check(root, found).stdout.startswith(f"{path}: FAILED\n")
    with pytest.raises(IntegrityError, match=path):
        store_root(logs(root))
    damage(root / "runs/2025-12-19/saw_red.json")
    with pytest.raises(IntegrityError, match="Nor are 1 more files as they were written"):
        store_root(logs(root))


def test_a_missing_artifact_is_named(root: Path) -> None:
    (root / "runs/2026-01-15/router_1.json").unlink()
    with pytest.raises(IntegrityError, match=r"router_1\.json cannot be read"):
        store_root(logs(root))


def test_a_changed_leaf_is_found_by_its_log(root: Path) -> None:
    damage(next((root / "ledger/1/rmos.runs.requests-0/tile/entries").rglob("*/*")), 60)
    with pytest.raises(IntegrityError, match=r"The log ledger/1/rmos\.runs\.requests-0 is not"):
        list(checksums_of(logs(root)))


def test_a_log_by_another_key_is_refused(root: Path) -> None:
    other = StoreLogs(disk_contents(root), [signer(SIGNER.name, seed=2).key])
    with pytest.raises(IntegrityError, match="expected a signature of"):
        list(checksums_of(other))


def test_a_store_without_a_log_has_the_root_of_nothing(tmp_path: Path) -> None:
    make_store(tmp_path / "store")
    assert store_root(logs(tmp_path / "store")) == EMPTY_ROOT


def test_a_folder_without_a_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreNotReadyError):
        logs(tmp_path)


def test_what_is_no_log_is_passed_over(root: Path) -> None:
    before = store_root(logs(root))
    for name in ("x", "1/notes", "01/rmos.runs.requests-0", "1/rmos.runs.requests-00"):
        (root / "ledger" / name).mkdir(parents=True)
    shutil.copy(root / "store.json", root / "ledger/1/file-0")
    assert store_root(logs(root)) == before
