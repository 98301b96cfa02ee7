"""What is published of the body of a POST: an identity put in, the original's name of a field."""

import json
from typing import Any

import pytest

from pipeline.api.answers import ApiError
from pipeline.api.routes import submissions
from pipeline.api.routes.advisories import _submission
from pipeline.api.routes.submissions import submission_of
from pipeline.core.hashing import sha256_of_json
from pipeline.core.json.strict import parse_object
from pipeline.core.runs.verdict import judge_run_record
from tests.builders import ABSENT, encode, run_request

ASKED = {"design": "rosette", "depth": 1.5, "n": 10**20}


def as_the_original_sends_it(**changes: Any) -> dict[str, Any]:
    request = run_request(request=ABSENT, **changes)
    return request | {"request_summary": ASKED}


def refused(body: bytes) -> ApiError:
    with pytest.raises(ApiError) as caught:
        submission_of(body)
    return caught.value


def test_request_summary_is_published_as_request() -> None:
    sent = as_the_original_sends_it(run_id=ABSENT, created_at_utc=ABSENT)
    submission = submission_of(encode(sent))
    published = json.loads(submission.body)
    assert published["request"] == ASKED
    assert "request_summary" not in published
    assert published["run_id"] == submission.run_id


def test_either_name_with_an_identity_is_the_same_request() -> None:
    """So a retry under the other name is a duplicate, as is the same request over Kafka."""
    ours = run_request(request=ASKED)
    by_alias = submission_of(encode(as_the_original_sends_it()))
    by_name = submission_of(encode(ours))
    assert by_name.body == encode(ours)
    assert sha256_of_json(json.loads(by_alias.body)) == sha256_of_json(ours)


def test_a_body_is_parsed_once_and_judged_as_the_worker_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judged = []

    def judge(key: bytes, value: bytes, parsed: Any) -> Any:
        assert parsed == parse_object(value)
        judged.append(judge_run_record(key, value))
        assert judge_run_record(key, value, parsed) == judged[-1]
        return judged[-1]

    monkeypatch.setattr(submissions, "judge_run_record", judge)
    without = {"run_id": ABSENT, "created_at_utc": ABSENT}
    for body in (
        encode(run_request(meta={"n": 10**30, "x": 1.0})),
        b" " + encode(run_request()) + b"\n",
        encode(run_request(**without)),
        encode(as_the_original_sends_it()),
    ):
        submission_of(body)
    assert len(judged) == 4


@pytest.mark.parametrize("value", [{}, None, {"a": 1}])
def test_a_request_under_both_names_is_refused(value: Any) -> None:
    error = refused(encode(run_request(request_summary=value)))
    assert (error.status, error.code) == (422, "INVALID_REQUEST")
    assert "request_summary" in error.message


@pytest.mark.parametrize(("value", "code"), [("text", "WRONG_TYPE"), (None, "MISSING")])
def test_a_violation_names_the_field_as_it_was_sent(value: Any, code: str) -> None:
    error = refused(encode(as_the_original_sends_it() | {"request_summary": value}))
    (violation,) = error.details["violations"]
    assert (violation["field"], violation["code"]) == ("request_summary", code)


@pytest.mark.parametrize("given", [{}, {"kind": None}])
def test_an_advisory_without_a_kind_is_of_the_kind_unknown(given: dict[str, Any]) -> None:
    body = encode({"advisory_id": "adv_1", "engine_id": "e", **given})
    assert json.loads(_submission("saw_1", body).body)["kind"] == "unknown"
