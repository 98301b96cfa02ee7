"""What one record is, looked at alone: the first rule that fits, in the order of the table."""

import json
from typing import Any

import pytest

from pipeline.core.runs import verdict
from pipeline.core.runs.verdict import JudgedRun, Rejected, judge_run_record
from tests.builders import RUN_ID, document, encode, judge, judged, record, run_request

LIMIT_BYTES = 4_194_304


def code(key: bytes | None, value: bytes | None) -> str | None:
    found = judge_run_record(key, value)
    return found.code if isinstance(found, Rejected) else None


def padded(size_bytes: int) -> bytes:
    body = encode(run_request())
    return body + b" " * (size_bytes - len(body))


KEY = RUN_ID.encode()
# Each record has the fault of its code and of every code after it.
IN_ORDER: list[tuple[str, bytes | None]] = [
    ("TOMBSTONE", None),
    ("TOO_LARGE", b"{" * (LIMIT_BYTES + 1)),
    ("INVALID_JSON", b'{"run_id":"diff","run_id":"diff","schema_version":"x"}'),
    ("INVALID_IDENTITY", encode({"run_id": "diff", "schema_version": "x"})),
    ("KEY_MISMATCH", encode(run_request(run_id="other", schema_version="x", mode=None))),
    ("UNSUPPORTED_VERSION", encode(run_request(schema_version="x", mode=None))),
]


@pytest.mark.parametrize(("expected", "value"), IN_ORDER)
def test_the_first_rule_that_fits_decides(expected: str, value: bytes | None) -> None:
    assert code(KEY, value) == expected


def test_a_record_with_none_of_these_faults_makes_a_run() -> None:
    found = judge(run_request(mode=None))
    assert isinstance(found, JudgedRun)
    assert found.is_incomplete


def test_the_value_may_have_4194304_bytes_and_not_one_more() -> None:
    assert code(KEY, padded(LIMIT_BYTES)) is None
    assert code(KEY, padded(LIMIT_BYTES + 1)) == "TOO_LARGE"


def test_an_empty_value_is_no_tombstone_but_no_json_either() -> None:
    assert code(KEY, b"") == "INVALID_JSON"


@pytest.mark.parametrize(
    "run_id",
    [
        "a",
        "0",
        "run_6f1d2c3b4a5968778695a4b3c2d1e0f0",
        "A.b-C_d",
        "a" * 100,
        "differ",
        "Diff",
        "attachment",
        "a.json",
        "a..b",
        "x_advisor",
        "x_advisoryy",
        "advisory_x",
        "x-advisory-y",
        "x_Advisory_y",
    ],
)
def test_a_run_id_of_the_pattern_names_a_run(run_id: str) -> None:
    run = judged(run_request(run_id=run_id))
    assert run.run_id == run_id
    assert run.path == f"runs/2025-12-18/{run_id}.json"


@pytest.mark.parametrize(
    "run_id",
    [
        "",
        "a" * 101,
        "_a",
        "-a",
        ".a",
        "a b",
        "a/b",
        "../a",
        "a\\b",
        "a%2e",
        "a:b",
        "é",
        "a\u0661",
        "a\n",
        "a\r",
        "a\x00",
        "\ta",
        "diff",
        "attachments",
        "x_advisory",
        "a_advisory_b",
        "a_advisory_",
        None,
        7,
        ["a"],
        {"a": 1},
        True,
    ],
)
def test_any_other_run_id_is_refused_and_never_repaired(run_id: Any) -> None:
    key = run_id.encode() if isinstance(run_id, str) else None
    found = judge_run_record(key, encode(run_request(run_id=run_id)))
    assert isinstance(found, Rejected)
    assert (found.code, found.run_id) == ("INVALID_IDENTITY", None)


@pytest.mark.parametrize(
    "created_at_utc",
    [
        None,
        5,
        "",
        "2025-12-18",
        "2025-12-18T14:03:22",
        "2025-02-29T00:00:00Z",
        ["x"],
        "1999-12-31T23:59:59Z",
        "2100-01-01T00:00:00Z",
        "2025-12-18T14:03:22Z\n",
    ],
)
def test_a_time_that_is_none_is_no_identity(created_at_utc: Any) -> None:
    found = judge(run_request(created_at_utc=created_at_utc))
    assert isinstance(found, Rejected)
    assert (found.code, found.run_id) == ("INVALID_IDENTITY", RUN_ID)


@pytest.mark.parametrize("field", ["run_id", "created_at_utc"])
def test_an_identity_that_is_not_there_is_none(field: str) -> None:
    request = run_request()
    del request[field]
    assert code(KEY, encode(request)) == "INVALID_IDENTITY"


@pytest.mark.parametrize("key", [None, b"", b"other", KEY + b"\n", KEY.upper(), b"\xff" + KEY])
def test_the_key_must_be_the_run_id_byte_for_byte(key: bytes | None) -> None:
    found = judge_run_record(key, encode(run_request()))
    assert isinstance(found, Rejected)
    assert (found.code, found.run_id) == ("KEY_MISMATCH", RUN_ID)


@pytest.mark.parametrize(
    "version",
    [
        "",
        "rmos.run_request/2",
        "rmos.run_request/1.1",
        "rmos.legacy_run/1",
        "RMOS.RUN_REQUEST/1",
        1,
        True,
        [],
        {},
        "rmos.run_request/1\n",
    ],
)
def test_a_version_that_is_not_known_is_not_guessed(version: Any) -> None:
    found = judge(run_request(schema_version=version))
    assert isinstance(found, Rejected)
    assert (found.code, found.run_id) == ("UNSUPPORTED_VERSION", RUN_ID)


def test_no_version_and_null_mean_the_first_one() -> None:
    request = run_request()
    del request["schema_version"]
    assert isinstance(judge(request), JudgedRun)
    assert isinstance(judge(run_request(schema_version=None)), JudgedRun)


@pytest.mark.parametrize(("expected", "value"), IN_ORDER)
def test_a_message_is_one_sentence_that_shows_nothing_of_the_value(
    expected: str, value: bytes | None
) -> None:
    found = judge_run_record(KEY, value)
    assert isinstance(found, Rejected)
    assert found.message.startswith("Expected ")
    assert found.message.endswith(".")
    assert len(found.message) < 200


def test_our_own_exception_on_one_record_is_an_internal_error_and_no_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        message = "secret of the record"
        raise KeyError(message)

    monkeypatch.setattr(verdict, "judged_run", fail)
    found = judge(run_request())
    assert found == Rejected("INTERNAL_ERROR", "KeyError while judging the record.")


@pytest.mark.parametrize("error", [OSError, MemoryError])
def test_an_exception_of_the_machine_is_not_the_records_fault(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(verdict, "judged_run", fail)
    with pytest.raises(error):
        judge(run_request())


def test_the_path_is_in_the_folder_of_the_utc_date() -> None:
    run = judged(run_request(created_at_utc="2026-01-01T00:30:00+01:00"))
    assert run.path == f"runs/2025-12-31/{RUN_ID}.json"
    assert run.built.document["created_at_utc"] == "2025-12-31T23:30:00Z"


def test_judging_twice_gives_the_same_bytes() -> None:
    key, value = record(run_request())
    first, second = judge_run_record(key, value), judge_run_record(key, bytes(bytearray(value)))
    assert first == second


def test_integers_of_4300_digits_are_kept_and_longer_ones_refused() -> None:
    body = encode(run_request()).removesuffix(b"}") + b',"drift_summary":'
    kept = judge_run_record(KEY, body + b"7" * 4300 + b"}")
    assert isinstance(kept, JudgedRun)
    assert b'"drift_summary":' + b"7" * 4300 in kept.built.content
    assert code(KEY, body + b"7" * 4301 + b"}") == "INVALID_JSON"


def test_numbers_are_written_as_they_are_defined() -> None:
    body = encode(run_request()).removesuffix(b"}")
    body += b',"drift_summary":[1E2,1e-5,0.1e1,-0,-0.0,50,18446744073709551616]}'
    run = judge_run_record(KEY, body)
    assert isinstance(run, JudgedRun)
    written = b'"drift_summary":[100.0,1e-05,1.0,0,-0.0,50,18446744073709551616]'
    assert written in run.built.content
    assert json.loads(run.built.content) == run.built.document


def test_a_request_of_64_levels_is_stored_with_all_of_them() -> None:
    deep: Any = []
    for _ in range(61):
        deep = [deep]
    assert document(run_request(meta={"deep": deep}))["meta"] == {"deep": deep}
    assert isinstance(judge(run_request(meta={"deep": [deep]})), Rejected)
