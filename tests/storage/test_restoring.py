"""Restoring makes again what is missing, with the same bytes, and touches nothing that is there."""

import stat
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.advisories.verdict import judge_advisory_record
from pipeline.core.record import RecordId, RecordSource
from pipeline.core.store.files import Creation
from pipeline.storage.advisory_store import AdvisoryRecord, AdvisoryStore
from pipeline.storage.batch_plan import JudgedRecord
from pipeline.storage.restoring import Restoration
from pipeline.storage.run_store import RunRecord
from pipeline.storage.store import open_store_to_write
from tests.builders import advisory_request, attachment, record, red_request, run_request, sha256
from tests.ledger.ledgers import damage, ledger, on_disk
from tests.storage.stores import (
    TIMESTAMP_MS,
    TOPIC,
    change_index,
    files,
    judged_record,
    make_store,
    opened,
    row_of,
    rows,
)

ARTIFACT = "runs/2025-12-18/run_1.json"
CONTENT = b"blob of run_1"
BLOB = f"attachments/{sha256(CONTENT)[:2]}/{sha256(CONTENT)[2:4]}/{sha256(CONTENT)}"


def records() -> list[RunRecord]:
    """Return a run with a blob and G-code of its own, one that is not OK, and one without more."""
    request = run_request(
        run_id="run_1",
        attachments=[attachment(CONTENT)],
        outputs={"gcode_text": "G1 X1\n" * 40_000},
    )
    requests: list[dict[str, Any]] = [
        request,
        red_request(run_id="run_2"),
        run_request(run_id="run_3"),
    ]
    return [judged_record(each, offset) for offset, each in enumerate(requests)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with opened(tmp_path, ledger=ledger(tmp_path)) as store:
        store.commit(records())
    return tmp_path


def restore(root: Path, wanted: list[RunRecord], reached: int = 0) -> Restoration:
    with opened(root) as store:
        return store.restore(wanted, {(TOPIC, 0): reached} if reached else {})


def remade(restoration: Restoration) -> set[str]:
    return {each.file.path for each in restoration.files if each.creation is Creation.CREATED}


def tree(root: Path) -> dict[str, tuple[bytes, int]]:
    return {
        path: (content, stat.S_IMODE((root / path).lstat().st_mode))
        for path, content in files(root).items()
    }


@pytest.mark.parametrize("number", range(6))
def test_any_missing_file_comes_back_with_its_bytes_and_its_mode(root: Path, number: int) -> None:
    before = tree(root)
    paths = [path for path in before if not path.startswith("ledger/")]
    assert len(paths) == 6
    (root / paths[number]).unlink()
    assert remade(restore(root, records())) == {paths[number]}
    assert tree(root) == before


def test_a_whole_store_comes_back_at_once(root: Path) -> None:
    before = tree(root), rows(root)
    for path in (path for path in before[0] if not path.startswith("ledger/")):
        (root / path).unlink()
    assert len(remade(restore(root, records()))) == 6
    assert (tree(root), rows(root)) == before


def test_where_nothing_is_missing_nothing_is_written(root: Path) -> None:
    before = {path: (root / path).stat().st_ino for path in files(root)}
    restoration = restore(root, records())
    assert {each.creation for each in restoration.files} == {Creation.SAME}
    assert {path: (root / path).stat().st_ino for path in files(root)} == before


def test_a_file_with_other_bytes_is_reported_and_left_alone(root: Path) -> None:
    damage(root / ARTIFACT)
    changed = (root / ARTIFACT).read_bytes()
    found = {each.file.path: each for each in restore(root, records()).files}
    assert found[ARTIFACT].creation is Creation.DIFFERENT
    assert found[ARTIFACT].source.id.offset == 0
    assert (root / ARTIFACT).read_bytes() == changed


def test_an_artifact_is_not_made_where_its_blob_has_other_bytes(root: Path) -> None:
    damage(root / BLOB)
    (root / ARTIFACT).unlink()
    found = {each.file.path: each.creation for each in restore(root, records()).files}
    assert found[BLOB] is Creation.DIFFERENT
    assert found[ARTIFACT] is Creation.NOT_MADE
    assert not (root / ARTIFACT).exists()


def test_a_folder_in_place_of_a_file_is_something_else(root: Path) -> None:
    (root / ARTIFACT).unlink()
    (root / ARTIFACT).mkdir()
    found = {each.file.path: each.creation for each in restore(root, records()).files}
    assert found[ARTIFACT] is Creation.DIFFERENT


def test_another_artifact_of_the_run_is_never_made(root: Path) -> None:
    (root / ARTIFACT).unlink()
    other = judged_record(run_request(run_id="run_1", notes="changed"), 5)
    restoration = restore(root, [other])
    assert (restoration.files, restoration.unlike) == ([], [other.source])
    assert not (root / ARTIFACT).exists()


def test_a_row_that_is_missing_comes_back_without_a_leaf(root: Path) -> None:
    before = row_of(root, "run_3")
    leaves = on_disk(root)
    change_index(root, "DELETE FROM attachments")
    change_index(root, "DELETE FROM runs WHERE run_id = 'run_3'")
    restore(root, records()[2:], reached=3)
    assert row_of(root, "run_3") == before
    assert on_disk(root) == leaves


def test_the_position_moves_where_it_is_told_and_never_back(root: Path) -> None:
    restore(root, records(), reached=9)
    restore(root, records(), reached=4)
    (position,) = rows(root)["positions"]
    assert position["next_offset"] == 9


def asked(offset: int, **changes: Any) -> AdvisoryRecord:
    key, value = record(advisory_request(**({"run_id": "run_3"} | changes)))
    source = RecordSource(1, RecordId("rmos.advisories.requests", 0, offset))
    return JudgedRecord.of(source, judge_advisory_record(key, value), value, TIMESTAMP_MS)


def restore_advisories(root: Path, wanted: list[AdvisoryRecord]) -> Restoration:
    store = AdvisoryStore(open_store_to_write(root))
    try:
        return store.restore(wanted, {})
    finally:
        store.close()


def commit_advisories(root: Path, wanted: list[AdvisoryRecord]) -> None:
    store = AdvisoryStore(open_store_to_write(root))
    try:
        store.commit(wanted)
    finally:
        store.close()


def test_a_missing_link_and_its_content_come_back(root: Path) -> None:
    commit_advisories(root, [asked(0), asked(1, advisory_id="adv_2", content_text="more")])
    before = tree(root), rows(root)
    for link in (root / "runs/2025-12-18").glob("*_advisory_*"):
        link.unlink()
    text = sha256(advisory_request()["content_text"])
    (root / f"attachments/{text[:2]}/{text[2:4]}/{text}").unlink()
    wanted = [asked(0), asked(1, advisory_id="adv_2", content_text="more")]
    assert len(remade(restore_advisories(root, wanted))) == 3
    assert (tree(root), rows(root)) == before


def test_a_claim_whose_run_is_there_by_now_gets_its_link(root: Path) -> None:
    commit_advisories(root, [asked(0, run_id="run_late")])
    with opened(root) as store:
        store.commit([judged_record(run_request(run_id="run_late"), 3)])
    link = "runs/2025-12-18/run_late_advisory_adv_1.json"
    assert link not in files(root)
    assert remade(restore_advisories(root, [asked(0, run_id="run_late")])) == {
        link,
        *(path for path in files(root) if sha256(advisory_request()["content_text"]) in path),
    }
    (row,) = rows(root)["advisories"]
    assert row["link_path"] == link


def test_a_claim_whose_run_is_not_there_makes_no_file(root: Path) -> None:
    make_store(root / "other")
    restoration = restore_advisories(root / "other", [asked(0)])
    assert (restoration.files, restoration.unlike) == ([], [])
    (row,) = rows(root / "other")["advisories"]
    assert (row["advisory_id"], row["link_path"]) == ("adv_1", None)
