"""The published test vectors are what the program does, and what the standard library says.

`docs/test-vectors.json` is for people who write another implementation. It is written by
`python -m tests.vectors`, never by a test.
"""

import hashlib
import json
from typing import Any

import pytest

from pipeline.core.json.strict import InvalidJsonError, parse_by_rule, parse_object
from pipeline.core.runs.verdict import JudgedRun, Rejected, judge_run_record
from schemas.fields import is_run_id
from schemas.timestamps import normalise_timestamp
from tests.builders import encode, run_request
from tests.vectors import PATH, text

VECTORS: dict[str, Any] = json.loads(PATH.read_text())


def named(vector: dict[str, Any]) -> str:
    return vector.get("name") or vector["input"]


def test_the_published_file_is_what_the_program_does() -> None:
    assert PATH.read_text() == text()


@pytest.mark.parametrize("vector", VECTORS["canonical_json"], ids=named)
def test_canonical_bytes_are_those_of_the_standard_library(vector: dict[str, Any]) -> None:
    value = json.loads(vector["input"])
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert text == vector["canonical"]
    assert text.encode().hex() == vector["canonical_hex"]
    assert hashlib.sha256(text.encode()).hexdigest() == vector["sha256"]
    assert parse_object(vector["input"].encode())[1] == text.encode()


@pytest.mark.parametrize("vector", VECTORS["refused"], ids=named)
def test_what_is_refused_is_refused_by_parser_definition_and_verdict(
    vector: dict[str, Any],
) -> None:
    body = vector["input"].encode()
    for parse in (parse_object, parse_by_rule):
        with pytest.raises(InvalidJsonError):
            parse(body)
    verdict = judge_run_record(b"run_1", body)
    assert isinstance(verdict, Rejected)
    assert verdict.code == "INVALID_JSON"


@pytest.mark.parametrize("vector", VECTORS["created_at_utc"], ids=named)
def test_times_are_stored_as_published(vector: dict[str, Any]) -> None:
    if vector["stored"] is not None:
        assert normalise_timestamp(vector["input"]) == vector["stored"]
    else:
        with pytest.raises(ValueError, match=r"."):
            normalise_timestamp(vector["input"])


@pytest.mark.parametrize("vector", VECTORS["run_requests"], ids=named)
def test_a_request_makes_the_published_artifact(vector: dict[str, Any]) -> None:
    body = vector["input"].encode()
    run = judge_run_record(json.loads(body)["run_id"].encode(), body)
    assert isinstance(run, JudgedRun)
    assert run.built.content.decode() == vector["artifact"]
    assert run.request_sha256 == vector["request_sha256"]
    assert run.path == vector["artifact_path"]
    assert run.built.document["status"] == vector["status"]
    assert hashlib.sha256(vector["artifact"].encode()).hexdigest() == vector["artifact_sha256"]
    canonical = json.dumps(
        json.loads(body), sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    assert hashlib.sha256(canonical.encode()).hexdigest() == vector["request_sha256"]


@pytest.mark.parametrize("run_id", VECTORS["reserved_run_ids"])
def test_reserved_run_ids_are_refused(run_id: str) -> None:
    assert not is_run_id(run_id)
    verdict = judge_run_record(run_id.encode(), encode(run_request(run_id=run_id)))
    assert isinstance(verdict, Rejected)
    assert verdict.code == "INVALID_IDENTITY"
