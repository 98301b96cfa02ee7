"""Documents say what is there: commands, settings, metrics, codes, topics and links exist."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from pipeline.cli.demo.requests import demo_requests
from pipeline.core.record import RecordId, RecordSource
from pipeline.core.runs.verdict import JudgedRun, judge_run_record
from pipeline.core.violations import REASONS
from pipeline.disk.store_identity import create_store
from pipeline.legacy.mapping import ROW_CODES
from pipeline.legacy.record import INVALID_LEGACY_RUN
from pipeline.settings import FORMER_SETTINGS, ORIGINAL_SETTINGS, PREFIX, known_variables
from pipeline.storage.batch_plan import JudgedRecord
from pipeline.storage.run_store import RunStore
from pipeline.storage.store import open_store_to_write
from pipeline.topics import DAY_MS, topic_table
from schemas.advisory_event import AdvisoryEvent
from schemas.advisory_link import AdvisoryLink
from schemas.advisory_request import AdvisoryRequest
from schemas.audit_finding import AuditFinding
from schemas.audit_report import AuditReport
from schemas.audit_request import AuditRequest
from schemas.run_artifact import RunArtifact
from schemas.run_event import RunEvent
from schemas.run_request import RunContext, RunRequest
from tests.docs.command_words import fault_of
from tests.docs.tables import (
    audit_codes_table,
    commands_table,
    metrics_table,
    promises_table,
    reasons_table,
    settings_table,
)

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PIPELINE = ROOT / "pipeline"
DOCUMENTS = [README, *sorted((ROOT / "docs").rglob("*.md"))]
_FENCED = re.compile(r"^```\w*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"^[A-Z]+(_[A-Z]+)*$")
_SETTING = re.compile(r"RMOS_[A-Z0-9_]*[A-Z](?![A-Z0-9_]*\.md)")  # no name of a document
_MESSAGE = re.compile(r"\b[A-Z]+_(?:CORRUPT|NOT_FOUND|UNEXPLAINED): \w")


def text_of(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def code_lines(text: str) -> Iterator[str]:
    """Yield every line of a block of code, indented or fenced."""
    for block in _FENCED.findall(text):
        yield from block.splitlines()
    for line in _FENCED.sub("", text).splitlines():
        if line.startswith("    "):
            yield line.strip()


def commands_in(text: str) -> Iterator[str]:
    """Yield every `rmos ...` that a document names, in blocks of code and between backticks."""
    spans = re.findall(r"`([^`]+)`", _FENCED.sub("", text))
    for code in [*code_lines(text), *spans]:
        for part in code.split("&&"):
            words = " ".join(part.split()).removeprefix(".venv/bin/")
            if words == "rmos" or words.startswith("rmos "):
                yield words


def section(text: str, heading: str) -> str:
    """Return what stands below a heading, up to the next one of any level."""
    found = re.search(
        rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", text, re.DOTALL | re.MULTILINE
    )
    assert found is not None, heading
    return found[1]


def rows_of(text: str) -> list[list[str]]:
    """Return the cells of the first table, without its heading."""
    found = re.search(r"^\|[^\n]*\n\|[-| ]*\n((\|[^\n]*\n)*)", text, re.MULTILINE)
    assert found is not None
    lines = found[1].splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_the_readme_is_as_long_as_it_should_be() -> None:
    assert 120 <= len(README.read_text(encoding="utf-8").splitlines()) <= 180


def test_the_readme_has_two_set_up_commands_of_one_line_each() -> None:
    demo, tests = set_up_commands()
    assert "'.[local]'" in demo
    assert demo.endswith(".venv/bin/rmos demo")
    assert "'.[test]'" in tests
    assert tests.endswith(".venv/bin/pytest")


def test_the_continuous_run_calls_the_test_command_of_the_readme() -> None:
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    _, tests = set_up_commands()
    calls = [call.strip('"') for call in re.findall(r"^ *run (.*)$", script, re.MULTILINE)]
    assert calls == [
        f"{tests} -m 'not browser'",
        ".venv/bin/pip install -q -e '.[browser]' && .venv/bin/pytest -n2 --dist=load -m browser",
        ".venv/bin/ruff check",
        ".venv/bin/ruff format --check",
        ".venv/bin/mypy",
    ]
    assert "set -euo pipefail" in script


def test_the_continuous_run_is_a_program_that_bash_accepts() -> None:
    script = ROOT / ".ci/run"
    assert script.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", str(script)], check=True)


def set_up_commands() -> list[str]:
    lines = code_lines(README.read_text(encoding="utf-8"))
    found = [line for line in lines if line.startswith("python3 -m venv")]
    assert len(found) == 2
    return found


def test_every_command_that_a_document_names_exists() -> None:
    faults = [
        (document.name, line, fault)
        for document in DOCUMENTS
        for line in sorted(set(commands_in(document.read_text(encoding="utf-8"))))
        if (fault := fault_of(line)) is not None
    ]
    assert faults == []


def test_commands_are_found_where_documents_have_them() -> None:
    text = "a `rmos runs\nlist` b\n\n    rmos up\n\n```sh\n.venv/bin/rmos demo\n```\nrmos no\n"
    assert sorted(commands_in(text)) == ["rmos demo", "rmos runs list", "rmos up"]
    assert len(set(commands_in(README.read_text(encoding="utf-8")))) > 15


@pytest.mark.parametrize(
    "line",
    [
        "rmos nothing",
        "rmos runs list --nothing",
        "rmos demo --port 1",
        "rmos runs show a b",
        "rmos runs list --limit",
    ],
)
def test_a_command_that_does_not_exist_is_found(line: str) -> None:
    assert fault_of(line) is not None


def test_every_setting_that_a_document_names_exists() -> None:
    former = FORMER_SETTINGS.keys() | ORIGINAL_SETTINGS.keys()
    known = known_variables() | {PREFIX + name for name in former}
    unknown = [
        (document.name, name)
        for document in DOCUMENTS
        for name in _SETTING.findall(document.read_text(encoding="utf-8"))
        if name not in known
    ]
    assert unknown == []


def test_every_command_is_listed_as_its_help_says() -> None:
    assert commands_table() in text_of("commands.md")


@pytest.mark.parametrize(
    "table",
    [settings_table(), metrics_table(), reasons_table(), promises_table()],
    ids=["settings", "metrics", "reasons", "promises"],
)
def test_a_generated_table_is_as_the_program_says(table: str) -> None:
    # `python -m tests.docs.tables` prints what to paste.
    assert table in text_of("operations.md")


def test_the_codes_of_audits_are_those_of_the_program() -> None:
    assert audit_codes_table() in text_of("audits.md")


def test_every_link_leads_somewhere() -> None:
    broken = [
        (document.name, target)
        for document in DOCUMENTS
        for target in _LINK.findall(document.read_text(encoding="utf-8"))
        if not re.match(r"[a-z]+:", target) and not leads_somewhere(document, target)
    ]
    assert broken == []


def leads_somewhere(document: Path, target: str) -> bool:
    path, _, anchor = target.partition("#")
    file = (document.parent / path).resolve() if path else document
    if not file.exists() or not file.is_relative_to(ROOT):
        return False
    return not anchor or anchor in anchors_of(file)


@pytest.mark.parametrize("target", ["nothing.md", "../LICENSE", "README.md#nothing", "#nothing"])
def test_a_link_that_leads_nowhere_is_found(target: str) -> None:
    assert not leads_somewhere(README, target)


def anchors_of(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {anchor_of(heading) for heading in headings}


def anchor_of(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize(
    ("heading", "modules"),
    [
        ("Error codes", ("core/envelope", "core/runs/verdict", "core/runs/outcome")),
        ("Error codes of advisories", ("core/advisories/verdict", "core/advisories/outcome")),
        ("Error codes of audits", ("audit/rules/request",)),
    ],
)
def test_the_error_codes_are_those_of_the_source(heading: str, modules: tuple[str, ...]) -> None:
    codes = {row[0].strip("`") for row in rows_of(section(text_of("messages.md"), heading))}
    assert codes == {
        node.value
        for module in modules
        for node in ast.walk(ast.parse((PIPELINE / f"{module}.py").read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and _CODE.match(node.value)
    }


def test_the_codes_of_legacy_runs_and_of_rows_are_those_of_the_source() -> None:
    listed = rows_of(section(text_of("messages.md"), "Error codes of legacy runs"))
    assert [row[0].strip("`") for row in listed] == [INVALID_LEGACY_RUN]
    refused = rows_of(section(text_of("migration.md"), "Rows that are refused"))
    assert {code.strip("`"): why for code, why in refused} == ROW_CODES


def test_the_violations_are_those_of_the_source() -> None:
    rows = rows_of(section(text_of("messages.md"), "Violations"))
    assert {code.strip("`"): reason for code, reason in rows} == REASONS


def test_the_topics_are_those_of_the_source() -> None:
    rows = rows_of(section(text_of("messages.md"), "Topics"))
    assert [row[:5] for row in rows] == [
        [
            topic.name,
            str(topic.partitions),
            kept(int(topic.configs["retention.ms"])),
            f"{int(topic.configs['max.message.bytes']) // 2**20} MiB",
            "broker's" if "message.timestamp.type" in topic.configs else "sender's",
        ]
        for topic in topic_table()
    ]


def kept(retention_ms: int) -> str:
    return "for ever" if retention_ms < 0 else f"{retention_ms // DAY_MS} days"


@pytest.mark.parametrize(
    ("heading", "shape"),
    [
        ("RunRequest", RunRequest),
        ("RunArtifact", RunArtifact),
        ("RunEvent", RunEvent),
        ("AdvisoryRequest", AdvisoryRequest),
        ("AdvisoryLink", AdvisoryLink),
        ("AdvisoryEvent", AdvisoryEvent),
        ("AuditRequest", AuditRequest),
        ("AuditFinding", AuditFinding),
        ("AuditReport", AuditReport),
    ],
)
def test_every_field_of_a_message_is_described(heading: str, shape: type[BaseModel]) -> None:
    rows = rows_of(section(text_of("messages.md"), heading))
    described = {name.strip() for row in rows for name in row[0].split(",")}
    # Of an artifact's optional fields the text says that they are those of the request.
    as_in_request = set(RunContext.model_fields) if shape is RunArtifact else set()
    assert described == set(shape.model_fields) - as_in_request


def test_the_checks_without_us_work_as_they_stand(tmp_path: Path) -> None:
    root = tmp_path / "store"
    create_store(root, cluster_id="cluster", prefix="rmos")
    store = RunStore(open_store_to_write(root))
    requests = demo_requests()
    store.commit(
        [
            JudgedRecord.of(
                RecordSource(1, RecordId("rmos.runs.requests", 0, offset)),
                judge_run_record(request.key, request.value),
                request.value,
                offset,
            )
            for offset, request in enumerate(requests)
        ]
    )
    store.close()
    (root / "body.json").write_bytes(requests[0].value)
    blocks = _FENCED.findall(section(text_of("storage-format.md"), "Check a file without us"))
    assert len(blocks) == 10
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(blocks)],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.count("True\n") == 2
    digests = re.findall(r"^[0-9a-f]{64}", done.stdout, re.MULTILINE)
    # One for comparing with the event, then two pairs: G-code, and the request.
    assert digests[1] == digests[2]
    assert digests[3] == digests[4]
    assert done.stdout.count(": OK\n") == 3


def test_the_hash_in_the_readme_is_that_of_the_demo() -> None:
    first = demo_requests()[0]
    judged = judge_run_record(first.key, first.value)
    assert isinstance(judged, JudgedRun)
    assert README.read_text(encoding="utf-8").count(judged.artifact_sha256) == 3


def test_the_message_behind_a_code_is_a_sentence_of_its_own() -> None:
    sources = [each for each in DOCUMENTS if "adr" not in each.parts]
    begun = [
        (path.name, message)
        for path in (*sources, *PIPELINE.rglob("*.py"))
        for message in _MESSAGE.findall(path.read_text(encoding="utf-8"))
    ]
    assert len(begun) >= 6
    assert [each for each in begun if not each[-1][-1].isupper()] == []
