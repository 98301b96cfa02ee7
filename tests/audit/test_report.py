"""The report of an audit: one file, written once, and refused where it is not what was written."""

import stat
from pathlib import Path

import pytest

from pipeline.audit.report import has_report, read_report, report_name, write_report
from pipeline.core.json.canonical import canonical_json
from pipeline.errors import IntegrityError
from tests.audit.audit_reports import REPORT


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    content = write_report(tmp_path, REPORT)
    path = tmp_path / report_name("a")
    assert path.read_bytes() == content == canonical_json(REPORT)
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert has_report(tmp_path, "a")
    assert read_report(tmp_path, "a") == (REPORT, content)


def test_where_there_is_none_there_is_none(tmp_path: Path) -> None:
    assert read_report(tmp_path, "a") is None
    assert not has_report(tmp_path, "a")


def test_a_report_is_never_replaced(tmp_path: Path) -> None:
    content = write_report(tmp_path, REPORT)
    with pytest.raises(IntegrityError, match=r"audits/a\.json"):
        write_report(tmp_path, REPORT | {"finished_at_utc": "2025-12-18T15:00:00Z"})
    assert (tmp_path / report_name("a")).read_bytes() == content
    assert write_report(tmp_path, REPORT) == content


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
        read_report(tmp_path, "a")


def test_a_folder_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / report_name("a")).mkdir(parents=True)
    with pytest.raises(IntegrityError):
        read_report(tmp_path, "a")
