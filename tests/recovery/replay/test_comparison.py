"""What a comparison says of records, leaves, rows and files that do not tell the same."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from pipeline.ledger.writer import Ledger
from pipeline.recovery.replay.comparison import StoreComparison
from pipeline.recovery.replay.findings import Finding, Tally
from pipeline.recovery.replay.history import LeafCursor, PartitionHistory
from pipeline.recovery.replay.request_topics import request_topics
from pipeline.storage.batch_plan import JudgedRecord
from pipeline.storage.run_store import RunStore
from pipeline.topics import TopicNames
from tests.archive.archived import create, remove
from tests.builders import attachment, attachment_ref, red_request, run_request, sha256
from tests.ledger.ledgers import LOG, damage, ledger
from tests.storage.stores import change_index, judged_record, opened, tombstone

RUNS = request_topics(TopicNames())[0]
PATH = "runs/2025-12-18/run_1.json"


def asked(offset: int, **changes: Any) -> JudgedRecord[Any]:
    return judged_record(run_request(**({"run_id": "run_1"} | changes)), offset)


RECORDS = [asked(0), asked(1), asked(2, notes="changed"), tombstone(3)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RunStore]:
    with opened(tmp_path, ledger=ledger(tmp_path)) as store:
        store.commit(RECORDS)
        yield store


def compared(
    store: RunStore, records: list[JudgedRecord[Any]], *, logs: Ledger | None = None
) -> list[Finding]:
    findings: list[Finding] = []
    reader = (logs or ledger(Path(store.name))).reader(LOG)
    history = PartitionHistory(0, LeafCursor(reader, 0, 99), remembers=True)
    comparison = StoreComparison(store.store, store.index, Tally(findings.append))
    comparison.compare(RUNS, history.observe(records))
    return findings


def test_a_store_as_it_was_written_has_no_findings(store: RunStore) -> None:
    assert compared(store, RECORDS) == []


def test_another_body_at_an_offset_is_a_different_leaf(store: RunStore) -> None:
    (finding,) = compared(store, [*RECORDS[:3], asked(3, run_id="run_other")])
    assert (finding.kind, finding.what, finding.path) == (
        "different",
        "leaf",
        "rmos.runs.requests/0/3",
    )
    assert "TOMBSTONE" in (finding.found or "")


def drifted(record: JudgedRecord[Any]) -> JudgedRecord[Any]:
    """Return the record as a program would judge it that renders other bytes."""
    built = structs.replace(record.verdict.built, content=record.verdict.built.content + b" ")
    verdict = structs.replace(record.verdict, built=built, artifact_sha256=sha256(built.content))
    return structs.replace(record, verdict=verdict)


@pytest.mark.parametrize("harm", [None, "changed", "missing"])
def test_a_program_that_renders_other_bytes_is_told_apart_from_a_changed_file(
    store: RunStore, harm: str | None
) -> None:
    known = sha256((Path(store.name) / PATH).read_bytes())
    if harm == "changed":
        damage(Path(store.name) / PATH)
    elif harm == "missing":
        (Path(store.name) / PATH).unlink()
    findings = compared(store, [drifted(RECORDS[0]), *RECORDS[1:]])
    told = {(each.kind, each.what, each.path, each.expected) for each in findings}
    assert ("different", "rendering", PATH, known) in told
    rest = told - {("different", "rendering", PATH, known)}
    kinds = {None: set(), "changed": {"different"}, "missing": {"missing"}}[harm]
    assert rest == {(kind, "artifact", PATH, known) for kind in kinds}


def test_what_a_row_has_lost_is_reported_where_its_files_are_there(store: RunStore) -> None:
    change_index(Path(store.name), "DELETE FROM runs")
    (finding,) = compared(store, RECORDS)
    assert (finding.kind, finding.what, finding.path) == ("missing", "row", PATH)
    (Path(store.name) / PATH).unlink()
    (finding,) = compared(store, RECORDS)
    assert (finding.kind, finding.what) == ("missing", "artifact")


def test_every_reference_to_an_upload_is_reported(store: RunStore) -> None:
    upload = b"came by another way"
    refs = [attachment_ref(upload)]
    records = [asked(4, run_id=name, attachments=refs) for name in ("run_2",)]
    records += [asked(5, run_id="run_3", attachments=refs)]
    store.commit(records)
    found = compared(store, [*RECORDS, *records])
    assert [(each.kind, each.named_by) for each in found] == [
        ("upload_missing", "runs/2025-12-18/run_2.json"),
        ("upload_missing", "runs/2025-12-18/run_3.json"),
    ]
    path = Path(store.name) / found[0].path
    path.parent.mkdir(parents=True)
    path.write_bytes(b"something else")
    assert {each.kind for each in compared(store, [*RECORDS, *records])} == {"different"}
    path.write_bytes(upload)
    assert compared(store, [*RECORDS, *records]) == []


def test_what_is_archived_is_no_finding_and_its_request_in_quarantine_is(tmp_path: Path) -> None:
    root, tar = tmp_path / "store", tmp_path / "old.tar"
    root.mkdir()
    blob = attachment(b"0\nSECTION\n")
    red = red_request(run_id="run_1", attachments=[blob])
    records = [judged_record(red, 0), asked(1)]
    with opened(root, ledger=ledger(root)) as store:
        store.commit(records)
        remove(create(root, tar))
        assert compared(store, records) == []
        assert compared(store, [drifted(records[0]), records[1]])[0].what == "rendering"
        (kept,) = (path for path in (root / "quarantine").rglob("*") if path.is_file())
        kept.unlink()
        (finding,) = compared(store, records)
        assert (finding.kind, finding.what) == ("missing", "quarantine")
        (root / "archives/2025-12-18.json").unlink()
        what = {each.what for each in compared(store, records)}
        assert what == {"quarantine", "artifact", "attachment"}
