"""What a worker tells of audits before its time, and what a scheduler asks for."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline import metrics
from pipeline.audit.journal import write_report
from pipeline.audit.worker.schedule import show_last_audits
from pipeline.disk.durable_files import DurableFiles
from tests.audit.audit_reports import REPORT

NOW = datetime(2026, 2, 1, 10, 30, tzinfo=UTC)


def keep(root: Path, audit_id: str, finished: str, **codes: int) -> None:
    write_report(
        DurableFiles(root),
        REPORT | {"audit_id": audit_id, "finished_at_utc": finished, "codes": codes},
    )


def last_clean(mode: str) -> Any:
    name = "rmos_last_clean_audit_timestamp_seconds"
    return metrics.REGISTRY.get_sample_value(name, {"mode": mode})


def test_the_last_audit_without_an_error_is_reported_and_no_other(tmp_path: Path) -> None:
    metrics.LAST_CLEAN_AUDIT.clear()
    keep(tmp_path, "hourly-2026-02-01T10", "2026-02-01T10:00:05Z", BYTES_DIFFER=1)
    keep(tmp_path, "hourly-2026-02-01T09", "2026-02-01T09:00:05Z", LATE=1, INTERNAL_ERROR=1)
    keep(tmp_path, "hourly-2026-02-01T08", "2026-02-01T08:00:05Z")
    show_last_audits(DurableFiles(tmp_path), NOW)
    assert last_clean("quick") == datetime(2026, 2, 1, 9, 0, 5, tzinfo=UTC).timestamp()
    assert last_clean("full") is None


def test_what_is_no_report_is_passed_over(tmp_path: Path) -> None:
    metrics.LAST_CLEAN_AUDIT.clear()
    keep(tmp_path, "daily-2026-01-31", "2026-01-31T02:10:00Z")
    (tmp_path / "audits" / "daily-2026-02-01.json").write_bytes(b"{}")
    show_last_audits(DurableFiles(tmp_path), NOW)
    assert last_clean("full") == datetime(2026, 1, 31, 2, 10, tzinfo=UTC).timestamp()


def test_every_code_has_a_series_from_the_start(tmp_path: Path) -> None:
    show_last_audits(DurableFiles(tmp_path), NOW)
    labels = {"code": "BYTES_DIFFER", "severity": "error"}
    assert metrics.REGISTRY.get_sample_value("rmos_audit_findings_total", labels) is not None
