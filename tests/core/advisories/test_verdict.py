"""What one advisory request is, looked at alone: a link, or why there can never be one."""

import json
from typing import Any

import pytest

from pipeline.core.advisories.verdict import AdvisoryClaim, JudgedAdvisory, judge_advisory_record
from pipeline.core.envelope import Rejected
from pipeline.core.json.canonical import canonical_json
from schemas.advisory_link import AdvisoryLink
from tests.builders import ABSENT, RUN_ID, advisory_request, encode, record, sha256


def judged(request: dict[str, Any]) -> JudgedAdvisory:
    verdict = judge_advisory_record(*record(request))
    assert isinstance(verdict, JudgedAdvisory), verdict
    return verdict


def rejected(request: dict[str, Any]) -> Rejected:
    verdict = judge_advisory_record(*record(request))
    assert isinstance(verdict, Rejected), verdict
    return verdict


def test_the_link_reports_the_request_and_the_hash_of_its_content() -> None:
    request = advisory_request(request_id="req_1")
    advisory = judged(request)
    text = request.pop("content_text").encode()
    assert json.loads(advisory.content) == request | {
        "schema_version": "rmos.advisory_link/1",
        "content_sha256": sha256(text),
        "mime": "text/markdown",
        "size_bytes": len(text),
    }
    assert advisory.content == canonical_json(advisory.link)
    assert advisory.link_sha256 == sha256(advisory.content)
    assert advisory.blob is not None
    assert advisory.blob.content == text
    AdvisoryLink.model_validate_json(advisory.content)


def test_json_content_is_stored_canonically() -> None:
    advisory = judged(advisory_request(content_text=ABSENT, content_json={"b": 1.0, "a": [None]}))
    assert advisory.blob is not None
    assert advisory.blob.content == b'{"a":[null],"b":1.0}'
    assert advisory.link["mime"] == "application/json"


@pytest.mark.parametrize("content", [0, False, "", [], {}])
def test_empty_json_content_is_content(content: Any) -> None:
    advisory = judged(advisory_request(content_text=ABSENT, content_json=content))
    assert advisory.blob is not None
    assert json.loads(advisory.blob.content) == content


def test_uploaded_content_is_known_by_its_hash_alone() -> None:
    advisory = judged(advisory_request(content_text=ABSENT, content_sha256="a" * 64))
    assert advisory.blob is None
    assert advisory.link["content_sha256"] == "a" * 64
    assert not {"mime", "size_bytes"} & advisory.link.keys()


def test_a_note_without_content_links_all_the_same() -> None:
    advisory = judged(advisory_request(kind="note", content_text=ABSENT))
    assert (advisory.blob, advisory.claim.content_sha256) == (None, None)


def test_null_is_the_same_as_leaving_out() -> None:
    nulls = {"engine_id": None, "request_id": None, "content_json": None, "schema_version": None}
    without = advisory_request(engine_id=ABSENT, schema_version=ABSENT)
    assert judged(advisory_request(**nulls)).content == judged(without).content


def test_the_time_is_normalised() -> None:
    advisory = judged(advisory_request(created_at_utc="2025-12-19T09:00:00.5+01:00"))
    assert advisory.link["created_at_utc"] == "2025-12-19T08:00:00.500000Z"


def test_the_claim_is_kind_engine_and_content() -> None:
    request = advisory_request()
    assert judged(request).claim == AdvisoryClaim(
        "explanation", "explainer", "20260101", sha256(request["content_text"])
    )
    same = judged(
        advisory_request(title="other", request_id="r", created_at_utc="2026-01-01T00:00:00Z")
    )
    assert same.claim == judged(request).claim


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "note"},
        {"engine_id": ABSENT},
        {"engine_version": "2"},
        {"content_text": "other"},
    ],
)
def test_each_part_of_the_claim_counts(change: dict[str, Any]) -> None:
    assert judged(advisory_request(**change)).claim != judged(advisory_request()).claim


@pytest.mark.parametrize(
    "change",
    [
        {"advisory_id": ABSENT},
        {"advisory_id": "../up"},
        {"advisory_id": "a\n"},
        {"advisory_id": "a" * 101},
        {"kind": "opinion"},
        {"kind": ABSENT},
        {"title": 7},
        {"colour": "red"},
        {"content_sha256": "A" * 64, "content_text": ABSENT},
        {"content_json": {}},
    ],
)
def test_anything_else_wrong_is_an_invalid_advisory(change: dict[str, Any]) -> None:
    verdict = rejected(advisory_request(**change))
    assert (verdict.code, verdict.run_id) == ("INVALID_ADVISORY", RUN_ID)


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        (RUN_ID.encode(), None, "TOMBSTONE"),
        (RUN_ID.encode(), b"[]", "INVALID_JSON"),
        (b"other", encode(advisory_request()), "KEY_MISMATCH"),
        (b"diff", encode(advisory_request(run_id="diff")), "INVALID_IDENTITY"),
        (RUN_ID.encode(), encode(advisory_request(created_at_utc="now")), "INVALID_IDENTITY"),
        (RUN_ID.encode(), encode(advisory_request(schema_version="x/9")), "UNSUPPORTED_VERSION"),
        (RUN_ID.encode(), encode(advisory_request()).ljust(4_194_305), "TOO_LARGE"),
    ],
)
def test_what_every_request_must_have_is_judged_as_for_runs(
    key: bytes, value: bytes | None, code: str
) -> None:
    verdict = judge_advisory_record(key, value)
    assert isinstance(verdict, Rejected)
    assert verdict.code == code


def test_the_largest_value_is_taken() -> None:
    key, value = record(advisory_request())
    assert isinstance(judge_advisory_record(key, value.ljust(4_194_304)), JudgedAdvisory)
