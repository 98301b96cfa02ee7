"""The store from Python answers what the API answers, and needs neither API nor broker."""

import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from pipeline import open_store
from pipeline.core.runs.verdict import JudgedRun
from pipeline.errors import (
    InputError,
    IntegrityError,
    NotFoundError,
    StoreError,
    StoreNotReadyError,
)
from pipeline.legacy.record import judge_legacy_record
from pipeline.storage.batch_plan import JudgedRecord
from pipeline.store import OpenStore
from schemas.http_answers import (
    AdvisoriesAnswer,
    AttachmentsAnswer,
    RunItem,
    RunView,
    VerificationAnswer,
)
from schemas.run_diff import RunDiff
from schemas.run_filter import RunFilter
from tests.api.conftest import Api, add_runs, api_over
from tests.builders import (
    advisory_request,
    attachment,
    attachment_ref,
    red_request,
    router_request,
    run_request,
    sha256,
)
from tests.legacy_rows import bare_row, mapped, original_v2_row, unknown_row, v1_row
from tests.storage.stores import TIMESTAMP_MS, change_index, files, make_store, opened, source

ROOT = Path(__file__).parents[1]
DXF = b"0\nSECTION\n"
NO_SOURCE = "UPDATE runs SET source_epoch=NULL, source_topic=NULL, source_offset=NULL"
OF_A_RUN: dict[str, Callable[[OpenStore], object]] = {
    "run": lambda store: store.run("saw_1"),
    "advisories": lambda store: store.advisories("saw_1"),
    "attachments": lambda store: store.attachments("saw_1"),
    "verify": lambda store: store.verify("saw_1"),
    "open_attachment": lambda store: store.open_attachment("saw_1", sha256(DXF)),
    "diff of a": lambda store: store.diff("saw_1", "saw_2"),
    "diff of b": lambda store: store.diff("saw_2", "saw_1"),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_store(tmp_path / "store")
    add_runs(
        tmp_path / "store",
        run_request(run_id="saw_1", attachments=[attachment(DXF)]),
        run_request(run_id="saw_2", created_at_utc="2025-12-18T15:00:00Z", notes=None),
    )
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> Iterator[OpenStore]:
    with open_store(root) as opened:
        yield opened


def typed(shape: type[BaseModel], content: bytes) -> BaseModel:
    return shape.model_validate_json(content)


async def test_every_answer_is_that_of_the_api(root: Path) -> None:
    async with api_over(root) as api:
        api.add_runs(
            red_request(run_id="saw_red", created_at_utc="2025-12-19T00:00:00Z"),
            router_request(run_id="wide", feasibility={"risk_level": "GREEN", "n": 2**70}),
        )
        api.add_advisories(
            advisory_request(run_id="saw_1"),
            advisory_request(run_id="saw_1", advisory_id="note", kind="note", content_text=None),
        )
        with open_store(root) as store:
            for run_id in ("saw_1", "saw_2", "saw_red", "wide"):
                await compare(api, store, run_id)
            answer = await api.get("/diff?a=saw_1&b=saw_red")
            assert store.diff("saw_1", "saw_red") == typed(RunDiff, answer.content)
            assert store.diff("saw_1", "saw_red").a.run_id == "saw_1"
            listed = (await api.get()).json()["items"]
            assert list(store.runs()) == [RunItem.model_validate(each) for each in listed]
            assert [each.run_id for each in store.runs(RunFilter(status="BLOCKED"))] == ["saw_red"]


async def compare(api: Api, store: OpenStore, run_id: str) -> None:
    answers: list[tuple[str, type[BaseModel], Callable[[str], object]]] = [
        ("", RunView, store.run),
        ("/advisories", AdvisoriesAnswer, store.advisories),
        ("/attachments", AttachmentsAnswer, store.attachments),
        ("/attachments/verify", VerificationAnswer, store.verify),
    ]
    for path, shape, method in answers:
        answer = await api.get(f"/{run_id}{path}")
        assert method(run_id) == typed(shape, answer.content), path


def test_history_is_read_with_the_advisories_of_its_time(root: Path, store: OpenStore) -> None:
    own = {
        "advisory_id": "adv_1",
        "kind": "opinion",
        "created_at_utc": "",
        "engine_id": None,
        "rating": 4,
    }
    rows = [v1_row(advisory_inputs=[own]), unknown_row(), bare_row(), original_v2_row()]
    for row, origin in zip(rows, ("v1", "v1", "v1", "original_v2"), strict=True):
        body = mapped(row, origin=origin).body
        run = judge_legacy_record(row["run_id"].encode(), body)
        assert isinstance(run, JudgedRun)
        with opened(root) as written:
            record = JudgedRecord.of(source(written.index.count()), run, body, TIMESTAMP_MS)
            written.commit([record])
        assert store.run(row["run_id"]).provenance.legacy
    (found,) = store.advisories(rows[0]["run_id"]).advisories
    assert found.model_dump(exclude_unset=True) == own


def test_all_runs_are_listed_whatever_the_size_of_a_page(root: Path, store: OpenStore) -> None:
    add_runs(root, *(run_request(run_id=f"run_{number}") for number in range(5)))
    whole = [each.run_id for each in store.runs()]
    assert len(whole) == 7
    assert [each.run_id for each in store.runs(RunFilter(limit=2))] == whole
    with pytest.raises(InputError, match="cursor"):
        next(store.runs(RunFilter(cursor="none of ours")))


def test_the_data_dir_of_the_settings_is_read_where_none_is_given(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RMOS_DATA_DIR", str(root))
    with open_store() as store:
        assert store.run("saw_1").status == "OK"
    monkeypatch.setenv("RMOS_DATA_DIR", str(root / "nowhere"))
    with pytest.raises(StoreNotReadyError):
        open_store()


def test_an_attachment_is_read_from_its_file(store: OpenStore) -> None:
    with store.open_attachment("saw_1", sha256(DXF)) as file:
        assert file.read(4) == DXF[:4]
        assert file.read() == DXF[4:]
        file.seek(0)
        assert file.read() == DXF
    for run_id, name in (("saw_2", sha256(DXF)), ("saw_1", sha256(b"")), ("saw_1", "../x")):
        with pytest.raises(NotFoundError, match="ATTACHMENT_NOT_FOUND"):
            store.open_attachment(run_id, name)


@pytest.mark.parametrize("method", OF_A_RUN)
def test_a_changed_artifact_is_never_answered(root: Path, store: OpenStore, method: str) -> None:
    path = artifact_of(root, "saw_1")
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b"saw:", b"SAW:"))
    with pytest.raises(IntegrityError, match="ARTIFACT_CORRUPT"):
        OF_A_RUN[method](store)
    # Nothing of a list is read from it.
    assert {each.run_id for each in store.runs()} == {"saw_1", "saw_2"}


def artifact_of(root: Path, run_id: str) -> Path:
    (found,) = (root / "runs").rglob(f"{run_id}.json")
    return found


@pytest.mark.parametrize("method", OF_A_RUN)
def test_a_run_that_no_record_explains_is_never_answered(
    root: Path, store: OpenStore, method: str
) -> None:
    change_index(root, NO_SOURCE)
    with pytest.raises(IntegrityError, match="RUN_UNEXPLAINED"):
        OF_A_RUN[method](store)
    assert list(store.runs()) == []


@pytest.mark.parametrize("run_id", ["nothing", "../store", ""])
def test_a_run_that_is_not_there_is_not_found(store: OpenStore, run_id: str) -> None:
    for method in (store.run, store.advisories, store.attachments, store.verify):
        with pytest.raises(NotFoundError, match="RUN_NOT_FOUND"):
            method(run_id)


def test_a_changed_attachment_is_never_opened_and_verify_names_it(
    root: Path, store: OpenStore
) -> None:
    (path,) = (root / "attachments").rglob(sha256(DXF))
    path.chmod(0o644)
    path.write_bytes(DXF[:-1] + b"!")
    with pytest.raises(IntegrityError, match="ATTACHMENT_CORRUPT"):
        store.open_attachment("saw_1", sha256(DXF))
    verification = store.verify("saw_1").verification
    assert (verification.ok, verification.results[0].error) == (False, "hash_mismatch")
    path.unlink()
    with pytest.raises(NotFoundError, match="BLOB_NOT_FOUND"):
        store.open_attachment("saw_1", sha256(DXF))
    assert store.run("saw_1").missing_attachments == [sha256(DXF)]


async def test_what_is_withheld_is_not_opened_by_any_name(root: Path) -> None:
    gcode = b"G90\nG1 Z-30\n"
    digest = sha256(gcode)
    async with api_over(root) as api:
        await api.put(digest, gcode)
        cut = attachment_ref(gcode, kind="gcode", mime="text/plain", filename="a.nc")
        inline = {"outputs": {"gcode_text": "G1 X1\n"}}
        api.add_runs(red_request(run_id="red_1", attachments=[cut], **inline))
        api.add_advisories(
            advisory_request(run_id="red_1", content_text=None, content_sha256=digest),
            advisory_request(run_id="saw_1", content_text=None, content_sha256=digest),
        )
    with open_store(root) as store:
        for run_id in ("red_1", "saw_1"):
            with pytest.raises(NotFoundError, match="ATTACHMENT_NOT_FOUND"):
                store.open_attachment(run_id, digest)
        run = store.run("red_1")
        assert (run.status, run.outputs.gcode_text, run.attachments) == ("BLOCKED", None, [])
        assert store.attachments("red_1").count == 0


def test_an_artifact_of_a_later_form_is_refused_and_not_guessed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = b'{"schema_version":"rmos.run_artifact/9","run_id":"saw_1"}'
    with open_store(root) as store:
        shown = type("Shown", (), {"content": later})
        monkeypatch.setattr(store._reader, "show", lambda _found: shown)
        with pytest.raises(StoreError, match="install the release of its workers"):
            store.run("saw_1")


def test_reading_changes_no_file(root: Path, store: OpenStore) -> None:
    before = files(root)
    for name, method in OF_A_RUN.items():
        if name != "open_attachment":
            method(store)
    list(store.runs())
    assert files(root) == before


def isolated(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)


def test_a_producer_with_the_base_install_alone_is_told_which_extra_it_needs() -> None:
    done = isolated(
        "import sys\n"
        "for name in ('msgspec', 'orjson', 'sqlalchemy', 'structlog', 'cryptography', 'anyio'):\n"
        "    sys.modules[name] = None\n"
        "from pipeline.broker.publisher import RunPublisher\n"
        "assert 'pipeline.storage' not in sys.modules\n"
        "try:\n"
        "    from pipeline import open_store\n"
        "except ImportError as error:\n"
        "    print(error)\n"
        "from pipeline import nothing\n"
    )
    assert "open_store needs the extra server, and there is no module " in done.stdout
    assert "cannot import name 'nothing' from 'pipeline'" in done.stderr


def test_the_examples_of_the_documents_run(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add_runs(root, red_request(run_id="saw_red", attachments=[attachment(DXF)]))
    monkeypatch.setenv("RMOS_DATA_DIR", str(root))
    for document in ("README.md", "docs/python.md"):
        blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / document).read_text(), re.M | re.S)
        (block,) = (each for each in blocks if "open_store" in each)
        exec(compile(block, document, "exec"), {})
        assert "saw_red" in capsys.readouterr().out, document


def test_the_example_program_writes_a_line_for_each_blocked_run(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reasons = {"risk_level": "RED", "block_reason": 'z "is" high, \x1b]2;x\x07\u202e'}
    add_runs(root, red_request(run_id="saw_red", feasibility=reasons))
    assert ran(monkeypatch, str(root)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "created_at_utc,run_id,tool_id,risk_level,block_reason"
    assert len(lines) == 2
    assert '""is"" high, \\x1b]2;x\\x07\\u202e"' in lines[1]
    artifact_of(root, "saw_red").unlink()
    assert ran(monkeypatch, str(root)) == 5
    assert ran(monkeypatch, str(root), "--date-from", "2030-01-01") == 0
    assert ran(monkeypatch, str(root / "nowhere")) == 6


def ran(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    program = ROOT / "docs" / "examples" / "readers" / "blocked_runs.py"
    monkeypatch.setattr(sys, "argv", [str(program), *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(program), run_name="__main__")
    return ended.value.code
