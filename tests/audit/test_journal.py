"""The files that an audit leaves stay as written.

What is done in the journal stays done, what was cut short is done again. The report is one file,
written once, and refused where it is not what was written.
"""

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.audit.journal import (
    AuditJournal,
    JournalState,
    has_report,
    journal_path,
    journal_progress,
    read_journal,
    read_report,
    report_name,
    seal_journal,
    write_report,
)
from pipeline.core.json.canonical import canonical_json
from pipeline.disk.durable_files import DurableFiles
from pipeline.errors import IntegrityError
from tests.audit.audit_reports import REPORT

BEGUN = {"request": {"audit_id": "a"}, "started_at_utc": "2025-12-18T14:00:00Z"}
RESULT: dict[str, Any] = {"counts": {"days": 1}, "codes": {}, "files": 3}


def taken(root: Path, audit_id: str = "a") -> AuditJournal:
    journal = AuditJournal.take(root, audit_id)
    assert journal is not None
    return journal


def finding(path: str, code: str = "BYTES_DIFFER") -> bytes:
    return json.dumps({"code": code, "path": path}).encode()


async def whole(root: Path) -> bytes:
    """Write a journal of two parts; return its bytes."""
    journal = taken(root)
    await journal.begin(BEGUN)
    await journal.add([finding("runs/1")])
    await journal.finish_part("2025-12-18", RESULT)
    await journal.add([finding("attachments/2", "ATTACHMENT_MISSING"), finding("runs/3")])
    await journal.finish_part("2025-12-19", RESULT)
    journal.close()
    return journal_path(root, "a").read_bytes()


@pytest.fixture(scope="module")
async def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return await whole(tmp_path_factory.mktemp("store"))


def state_of(content: bytes) -> JournalState:
    return read_journal(content.splitlines(keepends=True))


async def test_a_journal_reports_what_was_asked_and_what_is_done(tmp_path: Path) -> None:
    content = await whole(tmp_path)
    state = state_of(content)
    assert state.begun == BEGUN
    assert list(state.parts) == ["2025-12-18", "2025-12-19"]
    assert state.parts["2025-12-18"]["counts"] == {"days": 1}
    assert state.missing_blobs == {"attachments/2"}
    assert state.length == len(content)
    paths = [each["path"] for line in content.splitlines() if "code" in (each := json.loads(line))]
    assert paths == ["runs/1", "attachments/2", "runs/3"]


async def test_what_a_part_has_reported_counts_only_once_it_is_done(tmp_path: Path) -> None:
    done = await whole(tmp_path)
    journal = taken(tmp_path)
    await journal.add([finding("runs/4"), finding("attachments/5", "ATTACHMENT_MISSING")])
    journal.close()
    assert journal_path(tmp_path, "a").read_bytes() != done
    journal = taken(tmp_path)
    assert list(journal.state.parts) == ["2025-12-18", "2025-12-19"]
    assert "attachments/5" not in journal.state.missing_blobs
    journal.close()
    assert journal_path(tmp_path, "a").read_bytes() == done


async def test_an_audit_goes_on_behind_what_was_cut_off(tmp_path: Path) -> None:
    done = await whole(tmp_path)
    journal_path(tmp_path, "a").write_bytes(done + b'{"code":"BYTES_')
    journal = taken(tmp_path)
    await journal.add([finding("runs/4")])
    await journal.finish_part("places", RESULT)
    journal.close()
    content = journal_path(tmp_path, "a").read_bytes()
    assert content.startswith(done + finding("runs/4") + b"\n")
    assert list(state_of(content).parts) == ["2025-12-18", "2025-12-19", "places"]


@given(st.data())
def test_cut_anywhere_a_journal_keeps_its_whole_parts(content: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(content)))
    tail = data.draw(st.sampled_from([b"", b"\0\0\0", b"[]\n", b'{"done"']))
    state = state_of(content[:cut] + tail)
    ends = [0]
    for line in content.splitlines(keepends=True):
        ends.append(ends[-1] + len(line))
    kept = [end for end in (ends[1], ends[3], ends[6]) if end <= cut]
    assert state.length == (kept[-1] if kept else 0)
    assert len(state.parts) == max(0, len(kept) - 1)


async def test_the_ledger_is_read_again_and_reports_only_what_is_new(tmp_path: Path) -> None:
    journal = taken(tmp_path)
    await journal.begin(BEGUN)
    await journal.add([finding("ledger/1")])
    await journal.finish_part("ledger", RESULT)
    await journal.add([finding("runs/1")])
    await journal.finish_part("2025-12-18", RESULT)
    journal.close()
    journal = taken(tmp_path)
    assert journal.has(finding("ledger/1"))
    assert not journal.has(finding("ledger/2"))
    assert not journal.has(finding("runs/1"))
    await journal.add([finding("ledger/2")])
    await journal.finish_part("ledger", RESULT | {"files": 4})
    journal.close()
    journal = taken(tmp_path)
    assert journal.state.parts["ledger"]["files"] == 4
    assert journal.has(finding("ledger/1"))
    assert journal.has(finding("ledger/2"))
    journal.close()


def test_one_process_at_a_time_has_a_journal(tmp_path: Path) -> None:
    first = taken(tmp_path)
    assert AuditJournal.take(tmp_path, "a") is None
    other = taken(tmp_path, "b")
    other.close()
    first.close()
    taken(tmp_path).close()


async def test_a_sealed_journal_is_not_taken_again(tmp_path: Path) -> None:
    content = await whole(tmp_path)
    seal_journal(tmp_path, "a")
    path = journal_path(tmp_path, "a")
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    with pytest.raises(IntegrityError, match=r"audits/a\.ndjson"):
        AuditJournal.take(tmp_path, "a")
    assert path.read_bytes() == content


def test_sealing_what_is_not_there_is_no_fault(tmp_path: Path) -> None:
    seal_journal(tmp_path, "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_something_else_in_its_place_has_and_not_touched(tmp_path: Path, kind: str) -> None:
    path = journal_path(tmp_path, "a")
    target = tmp_path / "runs.json"
    target.write_bytes(b"precious")
    if kind == "folder":
        path.mkdir(parents=True)
    else:
        path.parent.mkdir()
        path.symlink_to(target)
    with pytest.raises(IntegrityError):
        AuditJournal.take(tmp_path, "a")
    assert target.read_bytes() == b"precious"


def test_a_file_that_is_no_journal_begins_anew(tmp_path: Path) -> None:
    path = journal_path(tmp_path, "a")
    path.parent.mkdir()
    path.write_bytes(b'{"done": "2025-12-18", "counts": {}, "codes": {}}\n')
    journal = taken(tmp_path)
    assert journal.state == JournalState()
    journal.close()


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    content = write_report(DurableFiles(tmp_path), REPORT)
    path = tmp_path / report_name("a")
    assert path.read_bytes() == content == canonical_json(REPORT)
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert has_report(DurableFiles(tmp_path), "a")
    assert read_report(DurableFiles(tmp_path), "a") == (REPORT, content)


def test_where_there_is_none_there_is_none(tmp_path: Path) -> None:
    assert read_report(DurableFiles(tmp_path), "a") is None
    assert not has_report(DurableFiles(tmp_path), "a")


def test_reports_that_cannot_be_reached_are_none(tmp_path: Path) -> None:
    """The audit runs, and says what is in the place of their folder."""
    (tmp_path / "audits").symlink_to("audits")
    assert not has_report(DurableFiles(tmp_path), "a")


def test_a_report_is_never_replaced(tmp_path: Path) -> None:
    content = write_report(DurableFiles(tmp_path), REPORT)
    with pytest.raises(IntegrityError, match=r"audits/a\.json"):
        write_report(DurableFiles(tmp_path), REPORT | {"finished_at_utc": "2025-12-18T15:00:00Z"})
    assert (tmp_path / report_name("a")).read_bytes() == content
    assert write_report(DurableFiles(tmp_path), REPORT) == content


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[1]",
        canonical_json(REPORT) + b"\n",
        canonical_json(REPORT | {"audit_id": "b"}),
        canonical_json(REPORT | {"mode": "deep"}),
    ],
)
def test_what_is_not_its_report_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / report_name("a")
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"audits/a\.json"):
        read_report(DurableFiles(tmp_path), "a")


def test_a_folder_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / report_name("a")).mkdir(parents=True)
    with pytest.raises(IntegrityError):
        read_report(DurableFiles(tmp_path), "a")


async def test_the_progress_of_an_audit_is_that_of_its_parts_together(tmp_path: Path) -> None:
    assert journal_progress(tmp_path, "a") is None
    for audit_id in ("a.part-1-of-3", "a.part-3-of-3", "aa.part-1-of-3", "b"):
        journal = taken(tmp_path, audit_id)
        await journal.begin(BEGUN)
        await journal.finish_part("2025-12-18", RESULT | {"counts": {"artifacts": 2}})
        journal.close()
    assert journal_progress(tmp_path, "a") == (4, 6)
    assert journal_progress(tmp_path, "b") == (2, 3)
