"""What hangs on a run, and blobs: the commands print the documents of the routes."""

from pathlib import Path

import httpx
import pytest

from pipeline.core.layout import attachment_path
from schemas.fields import RUN_ID_RULE
from schemas.http_answers import (
    AdvisoriesAnswer,
    AttachmentsAnswer,
    StoredAttachment,
    VerificationAnswer,
)
from schemas.run_diff import RunDiff
from tests.api.conftest import Api, add_runs, api_over
from tests.builders import advisory_request, attachment, run_request, sha256
from tests.cli.command_line import CommandLine
from tests.storage.stores import make_store

DXF = b"0\nSECTION\n"


@pytest.fixture
def store(rmos: CommandLine) -> CommandLine:
    """Give the command line over two runs; one has an attachment."""
    make_store(rmos.data_dir)
    add_runs(
        rmos.data_dir,
        run_request(run_id="saw_1", attachments=[attachment(DXF)]),
        run_request(run_id="saw_2", notes="other"),
    )
    return rmos


def attach(store: CommandLine) -> None:
    Api(store.data_dir, None, None, None).add_advisories(  # type: ignore[arg-type]
        advisory_request(run_id="saw_1")
    )


@pytest.mark.parametrize(
    ("command", "route"),
    [
        (["show", "saw_1"], "/saw_1"),
        (["diff", "saw_1", "saw_2"], "/diff?a=saw_1&b=saw_2"),
        (["advisories", "saw_1"], "/saw_1/advisories"),
        (["attachments", "saw_1"], "/saw_1/attachments"),
        (["verify", "saw_1"], "/saw_1/attachments/verify"),
    ],
    ids=" ".join,
)
async def test_json_is_the_document_of_the_route(
    store: CommandLine, command: list[str], route: str
) -> None:
    attach(store)
    done = store("runs", *command, "--json")
    assert done.status == 0
    async with api_over(store.data_dir) as api:
        answer: httpx.Response = await api.get(route)
    assert done.document == answer.json()


def test_a_name_that_looks_like_markup_is_shown_as_it_is(store: CommandLine) -> None:
    done = store("audit", "report", r"\[/] [bold]")
    assert done.status == 3
    assert r"'\\[/] [bold]'" in done.sentence


def test_a_run_that_is_not_there_is_named_and_a_bad_name_is_told_the_rule(
    store: CommandLine,
) -> None:
    done = store("runs", "show", "saw_9")
    assert (done.status, done.sentence) == (3, "RUN_NOT_FOUND: There is no run saw_9.")
    done = store("runs", "diff", "saw_1", "saw_9")
    assert (done.status, done.sentence) == (3, "RUN_NOT_FOUND: There is no run saw_9.")
    assert RUN_ID_RULE in store("runs", "show", "../saw_9").sentence


def test_a_reason_that_is_a_code_of_ours_says_what_was_looked_at(store: CommandLine) -> None:
    add_runs(store.data_dir, run_request(run_id="saw_3", feasibility={"score": 1}))
    shown = store("runs", "show", "saw_3").text
    assert "RISK_UNKNOWN: no risk_level is in decision, feasibility, its decision and " in shown


def test_a_title_cannot_act_on_a_terminal_or_break_a_row(store: CommandLine) -> None:
    title = "\x1b[2J one\ttwo\nthree \u202e"
    Api(store.data_dir, None, None, None).add_advisories(  # type: ignore[arg-type]
        advisory_request(run_id="saw_1", title=title)
    )
    _, row = store("runs", "advisories", "saw_1").text.splitlines()
    assert row.split("\t")[-1] == r"\u001b[2J one\u0009two\u000athree \u202e"


def test_a_diff_is_shown_line_by_line(store: CommandLine) -> None:
    done = store("runs", "diff", "saw_1", "saw_2")
    assert done.status == 0
    assert '+ notes: "other"' in done.text
    assert RunDiff.model_validate_json(store("runs", "diff", "saw_1", "saw_2", "--json").out)


def test_advisories_and_attachments_are_listed(store: CommandLine) -> None:
    assert store("runs", "advisories", "saw_1").err == "None.\n"
    attach(store)
    assert "adv_1\texplanation" in store("runs", "advisories", "saw_1").text
    assert "part.dxf" in store("runs", "attachments", "saw_1").text
    AdvisoriesAnswer.model_validate_json(store("runs", "advisories", "saw_1", "--json").out)
    AttachmentsAnswer.model_validate_json(store("runs", "attachments", "saw_1", "--json").out)


def test_verify_finds_a_flipped_byte(store: CommandLine) -> None:
    done = store("runs", "verify", "saw_1")
    assert (done.status, done.err) == (0, "1 attachment, 0 not as written\n")
    blob = store.data_dir / attachment_path(sha256(DXF))
    blob.unlink()
    blob.write_bytes(DXF[:-1] + b"x")
    done = store("runs", "verify", "saw_1")
    assert done.status == 5
    assert "hash_mismatch" in done.text
    answer = VerificationAnswer.model_validate_json(store("runs", "verify", "saw_1", "--json").out)
    assert not answer.verification.ok


def test_an_unknown_run_is_not_found(store: CommandLine) -> None:
    for command in ("advisories", "attachments", "verify"):
        found = [store("runs", command, run_id) for run_id in ("nobody", "../store", "")]
        assert [each.status for each in found] == [3, 3, 3], command
        assert all(each.sentence.startswith("RUN_NOT_FOUND: ") for each in found)


def test_a_blob_is_put_under_its_hash(store: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "part.dxf"
    file.write_bytes(b"new")
    done = store("attachments", "put", str(file), str(file))
    assert (done.status, done.err) == (0, "1 created, 1 there before\n")
    assert done.text.splitlines() == [f"{sha256(b'new')}  {file}"] * 2
    assert (store.data_dir / attachment_path(sha256(b"new"))).read_bytes() == b"new"
    first, summary = store("attachments", "put", "--json", str(file)).text.splitlines()
    assert StoredAttachment.model_validate_json(first).status == "exists"
    assert summary == '{"summary": {"created": 0, "exists": 1}}'


def test_a_file_that_cannot_be_read_is_said(store: CommandLine, tmp_path: Path) -> None:
    done = store("attachments", "put", str(tmp_path / "nothing"))
    assert (done.status, done.sentence) == (
        2,
        f"{tmp_path / 'nothing'} cannot be read: No such file or directory.",
    )


def test_a_blob_needs_a_store(rmos: CommandLine, tmp_path: Path) -> None:
    done = rmos("attachments", "put", str(tmp_path))
    assert done.status == 6
