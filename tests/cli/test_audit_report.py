"""`rmos audit report` and what `rmos audit run` refuses, without a broker."""

import json
from typing import Any

import pytest

from pipeline.audit.journal import report_name, write_report
from pipeline.disk.durable_files import DurableFiles
from tests.audit.audit_reports import REPORT
from tests.cli.command_line import CommandLine
from tests.storage.stores import make_store


@pytest.fixture
def store(rmos: CommandLine) -> CommandLine:
    rmos.data_dir.mkdir()
    make_store(rmos.data_dir)
    return rmos


def keep(store: CommandLine, **changes: Any) -> dict[str, Any]:
    report = REPORT | changes
    write_report(DurableFiles(store.data_dir), report)
    return report


def test_a_clean_report_is_printed_with_each_verdict_on_its_own(store: CommandLine) -> None:
    keep(store)
    done = store("audit", "report", "a")
    assert done.status == 0
    lines = done.text.splitlines()
    for verdict in ("INTEGRITY", "COMPLETENESS", "ANCHORED", "LATE"):
        assert f"{verdict}\tunknown\tnobody asked" in lines
    assert "store_root  -" in done.text


def test_a_report_with_findings_ends_with_5_and_names_their_codes(store: CommandLine) -> None:
    keep(store, codes={"BYTES_DIFFER": 2, "LATE": 1})
    done = store("audit", "report", "a")
    assert done.status == 5
    assert "2\tBYTES_DIFFER\terror" in done.text
    assert "1\tLATE\twarning" in done.text


def test_a_note_is_no_fault(store: CommandLine) -> None:
    keep(store, codes={"INTERNAL_ERROR": 1})
    assert store("audit", "report", "a").status == 0


def test_json_is_the_report_itself(store: CommandLine) -> None:
    report = keep(store, codes={"BYTES_DIFFER": 2})
    done = store("audit", "report", "a", "--json")
    assert done.status == 5
    assert done.document == report


@pytest.mark.parametrize("audit_id", ["b", "../store", "", "a/../a"])
def test_an_audit_that_is_not_there_is_not_found(store: CommandLine, audit_id: str) -> None:
    keep(store)
    done = store("audit", "report", audit_id)
    assert done.status == 3
    assert done.sentence.startswith("There is no audit ")


def test_an_audit_that_is_not_done_says_so(store: CommandLine) -> None:
    journal = store.data_dir / "audits" / "a.ndjson"
    journal.parent.mkdir(exist_ok=True)
    lines = (
        {"begun": {"request": {}, "started_at_utc": "2025-12-18T14:00:00Z"}},
        {"done": "ledger", "counts": {}, "codes": {}, "files": 3},
    )
    journal.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    done = store("audit", "report", "a")
    assert done.status == 3
    assert "is not done yet" in done.sentence


def test_a_report_that_was_changed_is_an_integrity_fault(store: CommandLine) -> None:
    keep(store)
    path = store.data_dir / report_name("a")
    path.chmod(0o600)
    path.write_bytes(json.dumps(REPORT).encode())
    done = store("audit", "report", "a")
    assert done.status == 5
    assert "audits/a.json" in done.sentence


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--all", "--date", "2025-12-18"], "found several"),
        (["--date", "2025-12-18", "--run-id", "a"], "found several"),
        (["--date", "2025-02-30"], "scope.dates.0: BAD_FORMAT"),
        (["--run-id", "../x"], "scope.run_ids.0: BAD_FORMAT"),
        (["--mode", "deep"], "mode: NOT_ALLOWED"),
        (["--audit-id", "../x"], "audit_id: BAD_FORMAT"),
    ],
)
def test_what_no_worker_would_take_is_not_asked(
    rmos: CommandLine, options: list[str], told: str
) -> None:
    done = rmos("audit", "run", *options)
    assert done.status == 2
    assert told in done.sentence


def test_without_a_broker_nothing_is_asked(rmos: CommandLine) -> None:
    done = rmos("audit", "run", "--json")
    assert done.status == 6
    assert done.sentence.startswith("No Kafka broker answers")
