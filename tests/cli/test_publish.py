"""What `rmos publish run` does with files that cannot be sent: nothing is, and it says why.

No broker answers in these tests. A command that tried to send would end with status 6.
"""

import json
from pathlib import Path

import pytest

from pipeline.cli.request_files import FileRecord, as_new, read_records
from schemas.fields import RUN_ID_RULE
from tests.builders import ABSENT, advisory_request, encode, incomplete_request, run_request
from tests.cli.command_line import NOBODY, CommandLine

GOOD = encode(run_request(run_id="good"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "requests.json"


def test_a_missing_file_is_named(rmos: CommandLine, file: Path) -> None:
    done = rmos("publish", "run", str(file))
    assert done.status == 2
    assert done.sentence == f"{file} cannot be read: No such file or directory."


def test_a_folder_is_no_file(rmos: CommandLine, tmp_path: Path) -> None:
    done = rmos("publish", "run", str(tmp_path))
    assert done.status == 2
    assert done.sentence == f"{tmp_path} cannot be read: Is a directory."


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_an_empty_file_is_not_nothing_to_do(rmos: CommandLine, file: Path, content: bytes) -> None:
    file.write_bytes(content)
    done = rmos("publish", "run", str(file))
    assert done.status == 2
    assert done.sentence == f"{file} is empty: expected a JSON object, or one a line."


def test_empty_standard_input_is_called_so(rmos: CommandLine) -> None:
    done = rmos("publish", "run", "-")
    assert done.status == 2
    assert done.sentence.startswith("standard input is empty")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b'{"run_id": ', "expected JSON, found something else at byte 11"),
        (b"[1, 2]", "expected an object"),
        (b'{"a": 1, "a": 2}', "expected no duplicate keys in an object"),
        (b'{"a": NaN}', "expected a JSON number, found NaN"),
        (b"\xef\xbb\xbf{}", "expected no byte order mark"),
    ],
    ids=["cut short", "list", "duplicate key", "NaN", "byte order mark"],
)
def test_what_is_no_strict_json_is_reported_with_its_line(
    rmos: CommandLine, file: Path, content: bytes, why: str
) -> None:
    file.write_bytes(content)
    done = rmos("publish", "run", str(file))
    assert done.status == 2
    assert done.sentence == f"{file}, line 1: {why}; --raw would send it as it is."


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (
            b'{\n "run_id": "x",\n "mode": "saw",,\n "meta": {}\n}\n',
            "expected JSON, found something else at byte 33, which is byte 15 of line 3",
        ),
        (
            b"\x89PNG\r\n\x1a\n",
            "expected UTF-8, found something else at byte 0, which is byte 0 of line 1",
        ),
    ],
    ids=["two commas", "binary"],
)
def test_a_fault_in_a_document_of_many_lines_is_reported_where_it_is(
    rmos: CommandLine, file: Path, content: bytes, why: str
) -> None:
    file.write_bytes(content)
    done = rmos("publish", "run", str(file))
    assert done.status == 2
    assert done.sentence == f"{file}: {why}; --raw would send each line as it is."


def test_one_bad_line_among_good_ones_is_reported_with_its_number(
    rmos: CommandLine, file: Path
) -> None:
    file.write_bytes(GOOD + b"\n\n" + GOOD + b"\nnot json\n" + GOOD)
    done = rmos("publish", "run", str(file))
    assert done.status == 2
    assert f"{file}, line 4: " in done.sentence


def test_many_bad_lines_are_reported_by_the_first(rmos: CommandLine, file: Path) -> None:
    file.write_bytes(b"{'run_id': 'x'}\n" * 900 + GOOD)
    done = rmos("publish", "run", str(file))
    assert f"{file}, line 1: " in done.sentence
    file.write_bytes(b"\n{'run_id': 'x'}\n" * 900)
    assert "which is byte 1 of line 2;" in rmos("publish", "run", str(file)).sentence


def test_one_bad_request_among_good_ones_keeps_all_back(rmos: CommandLine, file: Path) -> None:
    file.write_bytes(GOOD + b"\n" + encode(incomplete_request(run_id="bad")) + b"\n" + GOOD)
    done = rmos("publish", "run", str(file))
    assert done.status == 4
    assert done.out == b""
    told, fault = done.err.splitlines()
    assert told == (
        "Error: 1 of 3 requests are not valid, so none was sent (--raw sends them all the same):"
    )
    assert fault == f"  {file}, line 2: tool_id: required, and not there"


def test_only_ten_bad_requests_are_reported(rmos: CommandLine, file: Path) -> None:
    bad = [incomplete_request(run_id=f"bad_{number}") for number in range(12)]
    file.write_bytes(b"\n".join(map(encode, bad)))
    done = rmos("publish", "run", str(file))
    assert done.status == 4
    assert len(done.err.splitlines()) == 1 + 10 + 1
    assert done.err.endswith("  and 2 more\n")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"run_id": ABSENT}, f"INVALID_IDENTITY: Expected a run_id of {RUN_ID_RULE}; found none."),
        ({"run_id": "../etc"}, f"{RUN_ID_RULE}; found '../etc'."),
        ({"schema_version": "rmos.run_request/9"}, "found 'rmos.run_request/9'."),
    ],
    ids=["no run_id", "bad run_id", "other version"],
)
def test_what_would_be_a_dead_letter_is_refused_with_its_code(
    rmos: CommandLine, file: Path, changes: dict[str, object], why: str
) -> None:
    file.write_bytes(encode(run_request(**changes)))
    done = rmos("publish", "run", str(file))
    assert done.status == 4
    assert why in done.err


def test_an_object_over_many_lines_is_one_request(rmos: CommandLine, file: Path) -> None:
    file.write_text(json.dumps(incomplete_request(), indent=2))
    done = rmos("publish", "run", str(file))
    assert done.status == 4
    assert f"{file}: tool_id" in done.err


def test_a_good_request_is_sent_so_the_missing_broker_is_reported(
    rmos: CommandLine, file: Path
) -> None:
    file.write_bytes(GOOD)
    done = rmos("publish", "run", str(file))
    assert done.status == 6
    assert done.sentence.startswith(f"No Kafka broker answers at {NOBODY}")


GOOD_ADVISORY = encode(advisory_request())


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"kind": "opinion"}, "INVALID_ADVISORY: Expected an advisory request, found kind: "),
        ({"advisory_id": ABSENT}, "INVALID_ADVISORY: Expected an advisory request, found "),
        ({"content_json": 1}, "INVALID_ADVISORY: Expected at most one content, found "),
        (
            {"run_id": "diff"},
            f"INVALID_IDENTITY: Expected a run_id of {RUN_ID_RULE}; found 'diff'.",
        ),
    ],
    ids=["kind", "id", "content", "run"],
)
def test_one_bad_advisory_and_none_is_sent(
    rmos: CommandLine, file: Path, change: dict[str, object], why: str
) -> None:
    file.write_bytes(GOOD_ADVISORY + b"\n" + encode(advisory_request(**change)))
    done = rmos("publish", "advisory", str(file))
    assert done.status == 4
    assert f"line 2: {why}" in done.err


def test_good_advisories_would_be_sent(rmos: CommandLine, file: Path) -> None:
    file.write_bytes(GOOD_ADVISORY)
    assert rmos("publish", "advisory", str(file)).status == 6


def test_requests_as_new_have_another_run_id_and_the_time_of_now(file: Path) -> None:
    old = run_request()
    file.write_bytes(encode(old) + b"\n" + encode(old))
    records = read_records([str(file)], raw=False)
    first, second = map(_document, map(as_new, records))
    assert len({old["run_id"], first["run_id"], second["run_id"]}) == 3
    assert first["created_at_utc"] > old["created_at_utc"]
    same = {"run_id": "", "created_at_utc": ""}
    assert first | same == second | same == old | same


def _document(record: FileRecord) -> dict[str, object]:
    document: dict[str, object] = json.loads(record.body)
    assert record.run_id == document["run_id"]
    return document
