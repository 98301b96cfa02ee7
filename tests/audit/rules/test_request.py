"""What a record of the audit request topic asks for, or why it never can."""

import json
from typing import Any

import pytest

from pipeline.audit.rules.request import INVALID_AUDIT, judge_audit_record
from pipeline.core.envelope import Rejected
from schemas.audit_request import AuditRequest

ASKED: dict[str, Any] = {"audit_id": "a1", "scope": {"all": True}, "mode": "full"}


def judged(changes: dict[str, Any] | None = None, *, key: bytes = b"a1") -> AuditRequest | Rejected:
    return judge_audit_record(key, json.dumps(ASKED | (changes or {})).encode())


def test_a_whole_request_is_an_audit() -> None:
    found = judged()
    assert isinstance(found, AuditRequest)
    assert found.model_dump(exclude_none=True) == {
        "schema_version": "rmos.audit_request/1",
        **ASKED,
    }


def test_two_that_ask_for_the_same_are_equal_however_they_are_written() -> None:
    one = judged({"scope": {"dates": ["2025-12-19", "2025-12-18", "2025-12-19"]}})
    other = judged(
        {"schema_version": None, "scope": {"dates": ["2025-12-18", "2025-12-19"], "all": None}}
    )
    assert one == other
    assert isinstance(one, AuditRequest)


WRONG: tuple[tuple[dict[str, Any], str], ...] = (
    ({"scope": {}}, "scope: BAD_FORMAT"),
    ({"scope": {"all": True, "run_ids": ["a"]}}, "scope: BAD_FORMAT"),
    ({"scope": {"all": False}}, "scope.all: NOT_ALLOWED"),
    ({"scope": {"dates": []}}, "scope.dates: BAD_LENGTH"),
    ({"scope": {"dates": ["2025-02-30"]}}, "scope.dates.0: BAD_FORMAT"),
    ({"scope": {"run_ids": ["../x"]}}, "scope.run_ids.0: BAD_FORMAT"),
    ({"mode": "deep"}, "mode: NOT_ALLOWED"),
    ({"mode": None}, "mode: MISSING"),
    ({"audit_id": "../a1"}, "audit_id: BAD_FORMAT"),
    ({"audit_id": 1}, "audit_id: WRONG_TYPE"),
    ({"schema_version": "rmos.audit_request/2"}, "schema_version: NOT_ALLOWED"),
    ({"repair": True}, "repair: UNKNOWN_FIELD"),
)


def test_what_is_wrong_is_reported_by_field() -> None:
    found = [(judged(changes), told) for changes, told in WRONG]
    taken = [
        told
        for verdict, told in found
        if not isinstance(verdict, Rejected)
        or verdict.code != INVALID_AUDIT
        or told not in verdict.message
    ]
    assert taken == []


OF_DATES = {"audit_id": "a.part-1-of-3", "scope": {"dates": ["2025-12-18"]}}


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        (b"a1", None, "without a value"),
        (b"a1", b"[]", "object"),
        (b"a1", b"{", "JSON"),
        (b"a1", b" " * 4_194_305, "4,194,304"),
        (b"a2", json.dumps(ASKED).encode(), "key"),
        (None, json.dumps(ASKED).encode(), "key"),
        (b"a.part-1-of-3", json.dumps(ASKED | OF_DATES).encode(), "no part"),
    ],
)
def test_a_record_that_can_be_no_request_is_rejected(
    key: bytes | None, value: bytes | None, told: str
) -> None:
    found = judge_audit_record(key, value)
    assert isinstance(found, Rejected)
    assert found.code == INVALID_AUDIT
    assert told in found.message
