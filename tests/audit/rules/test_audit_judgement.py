"""Codes, times, samples and verdicts of an audit."""

from collections import Counter
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.audit.rules.content import check_date, check_time
from pipeline.audit.rules.finding import MEANINGS, Asked, Finding, Verdict, verdicts
from pipeline.audit.rules.request import is_sampled
from schemas.audit_finding import AuditCode, AuditFinding, AuditSeverity
from schemas.audit_report import AuditVerdicts

CREATED = "2025-12-18T14:03:22.5Z"
CREATED_MS = 1_766_066_602_500
ASKED = Asked(mode="full", broker=True, trusted=1, leaves=10, anchored_leaves=7)


def codes(findings: list[Finding]) -> list[str]:
    return [finding.code for finding in findings]


def test_every_code_has_a_meaning_and_nothing_else_has() -> None:
    assert tuple(MEANINGS) == get_args(AuditCode)
    assert {each.severity for each in MEANINGS.values()} == set(get_args(AuditSeverity))


@pytest.mark.parametrize(
    ("broker_ms", "expected"),
    [
        (CREATED_MS, []),
        (CREATED_MS + 86_400_000, []),
        (CREATED_MS + 86_400_001, ["LATE"]),
        (CREATED_MS - 300_000, []),
        (CREATED_MS - 300_001, ["FUTURE"]),
        (-1, []),
    ],
)
def test_a_record_may_come_a_day_after_its_time_and_five_minutes_before(
    broker_ms: int, expected: list[str]
) -> None:
    assert codes(check_time("p", CREATED, broker_ms)) == expected


def test_late_and_future_say_by_how_much() -> None:
    (late,) = check_time("p", CREATED, CREATED_MS + 90_000_000)
    assert late.found == f"one dated {CREATED} that came 90,000 s after it"
    (future,) = check_time("p", CREATED, CREATED_MS - 600_000)
    assert future.found == f"one dated {CREATED} that came 600 s before it"


@given(
    st.integers(0, 86_399_999_999),
    st.integers(-2 * 86_400_000, 3 * 86_400_000),
)
def test_a_date_alone_never_reports_more_than_the_time(micros: int, delay_ms: int) -> None:
    from schemas.timestamps import format_timestamp, parse_timestamp

    midnight = parse_timestamp("2025-12-18T00:00:00Z")
    from datetime import timedelta

    created = format_timestamp(midnight + timedelta(microseconds=micros))
    midnight_ms = 1_766_016_000_000
    broker_ms = midnight_ms + micros // 1000 + delay_ms
    by_date = codes(check_date("p", "2025-12-18", broker_ms))
    assert by_date in ([], codes(check_time("p", created, broker_ms)))


def test_a_sample_has_about_its_share_and_follows_from_id_and_path() -> None:
    paths = [f"runs/2025-12-18/run_{number}.json" for number in range(4_000)]
    first = [path for path in paths if is_sampled("a", path, 0.1)]
    assert 300 < len(first) < 500
    assert [path for path in paths if is_sampled("a", path, 0.1)] == first
    assert [path for path in paths if is_sampled("b", path, 0.1)] != first
    # A larger share reads what the smaller one does, and more.
    assert all(is_sampled("a", path, 0.2) for path in first)
    assert all(is_sampled("a", path, 1.0) for path in paths)


def test_a_finding_fails_the_verdict_of_its_code_and_no_other() -> None:
    failed, expected = {}, {}
    for code in get_args(AuditCode):
        found = verdicts(Counter({code: 3}), ASKED)
        AuditVerdicts.model_validate(found)
        failed[code] = {
            name: each["reason"] for name, each in found.items() if each["result"] != "ok"
        }
        verdict = MEANINGS[code].verdict
        expected[code] = {} if verdict is None else {verdict.value: f"Findings: {code} 3."}
    assert failed == expected


def test_late_and_future_alone_leave_integrity_as_it_is() -> None:
    found = verdicts(Counter({"LATE": 1, "FUTURE": 2}), ASKED)
    assert found["integrity"]["result"] == "ok"
    assert found["late"] == {"result": "failed", "reason": "Findings: LATE 1, FUTURE 2."}


def test_what_nobody_was_asked_is_unknown() -> None:
    found = verdicts({}, Asked(mode="quick", broker=False, trusted=0, leaves=10, anchored_leaves=0))
    results = {name: each["result"] for name, each in found.items()}
    assert results == {
        "integrity": "ok",
        "completeness": "unknown",
        "anchored": "unknown",
        "late": "ok",
    }
    assert "no file was read" in found["integrity"]["reason"]
    assert found["late"]["reason"].endswith("by the dates of the folders of runs.")
    assert {verdict.value for verdict in Verdict} == results.keys()


@given(st.binary(max_size=40), st.text(max_size=40), st.text(max_size=40))
def test_a_finding_can_always_be_published(name: bytes, expected: str, found: str) -> None:
    import os

    finding = Finding("BYTES_DIFFER", f"runs/{os.fsdecode(name)}", f"a{expected}", f"b{found}")
    try:
        expected.encode()
        found.encode()
    except UnicodeEncodeError:
        return
    document = finding.document("audit_1")
    AuditFinding.model_validate(document)
    document["path"].encode()
    assert document["severity"] == "error"
