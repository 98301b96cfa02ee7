"""A blob that never came is told from one that is gone, by the note of whoever first missed it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.core.layout import attachment_path
from pipeline.disk.durable_files import DurableFiles
from pipeline.storage.attachments import AttachmentFiles
from pipeline.storage.awaited_blobs import AWAITED_FOLDER
from tests.audit.audited import (
    add_advisories,
    add_runs,
    advisory,
    advisory_record,
    audit,
    run,
    run_record,
)
from tests.builders import ABSENT, attachment, attachment_ref, sha256
from tests.storage.stores import make_store

BLOB = b"0\nSECTION\n"
DIGEST = sha256(BLOB)
REF = attachment_ref(BLOB)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    make_store(tmp_path / "store")
    return tmp_path / "store"


def upload(root: Path) -> None:
    (root.parent / "blob").write_bytes(BLOB)
    AttachmentFiles(DurableFiles.untried(root)).put(root.parent / "blob")


def lose(root: Path) -> None:
    (root / attachment_path(DIGEST)).unlink()


def refer(root: Path, number: int = 0) -> None:
    add_runs(root, [run_record(run(number, attachments=[REF]), number)])


def bring(root: Path, number: int = 0) -> None:
    add_runs(root, [run_record(run(number, attachments=[attachment(BLOB)]), number)])


def link(root: Path) -> None:
    add_runs(root, [run_record(run(0), 0)])
    told = advisory(0, "run_0", content_text=ABSENT, content_sha256=DIGEST)
    add_advisories(root, [advisory_record(told, 0)])


def codes(root: Path) -> list[str]:
    found = audit(root)
    told = [each.code for each in found.findings]
    assert (found.results["integrity"] == "failed") == ("ATTACHMENT_MISSING" in told)
    return told


@pytest.mark.parametrize("name_it", [refer, link])
def test_a_blob_that_never_came_is_a_warning_until_it_comes(
    root: Path, name_it: Callable[[Path], None]
) -> None:
    name_it(root)
    for mode in ("full", "quick"):
        (finding,) = audit(root, mode=mode).findings
        assert (finding.code, finding.severity) == ("ATTACHMENT_AWAITED", "warning")
        assert finding.path == attachment_path(DIGEST)
        assert finding.found == "no file, and none ever came"
    upload(root)
    assert codes(root) == []
    assert list((root / AWAITED_FOLDER).iterdir()) == []


STORIES: dict[str, list[Callable[[Path], None]]] = {
    "uploaded, named, lost": [upload, refer, lose],
    "uploaded, named by a link, lost": [upload, link, lose],
    "named, uploaded, lost": [refer, upload, lose],
    "named, uploaded, lost, named again": [
        refer,
        upload,
        lose,
        lambda root: add_runs(root, [run_record(run(0, attachments=[REF]), 1)]),
    ],
    "brought, lost": [bring, lose],
    "named, brought by another run, lost": [refer, lambda root: bring(root, 1), lose],
}


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)
def test_a_blob_that_was_there_and_is_gone_is_an_error(
    root: Path, story: list[Callable[[Path], None]]
) -> None:
    for step in story:
        step(root)
    assert set(codes(root)) == {"ATTACHMENT_MISSING"}


def test_without_the_notes_a_missing_blob_counts_as_gone(root: Path) -> None:
    """As in a store of an older version: nothing says that it never came."""
    refer(root)
    shutil.rmtree(root / AWAITED_FOLDER)
    assert codes(root) == ["ATTACHMENT_MISSING"]


def test_what_is_no_note_is_unexpected_among_them(root: Path) -> None:
    refer(root)
    (root / AWAITED_FOLDER / "readme").write_bytes(b"")
    assert sorted(codes(root)) == ["ATTACHMENT_AWAITED", "STRANGE_FILE"]
