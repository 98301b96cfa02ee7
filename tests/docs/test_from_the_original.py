"""Each name of the original has its name here, or the reason that it is gone."""

import re
from pkgutil import resolve_name

import pytest

from pipeline.api.application import openapi_document
from pipeline.settings import ORIGINAL_SETTINGS, PREFIX
from tests.docs.command_words import fault_of
from tests.docs.test_documents import ROOT, section, text_of

DOCUMENT = text_of("from-the-original.md")
SECTIONS = {
    "Modules": [
        *("schemas.py", "store.py", "hashing.py", "attachments.py", "diff.py", "compat.py"),
        *("migration_utils.py", "api_runs.py", "cli_migrate.py", "runs/"),
    ],
    "Classes and types": [
        *("RunArtifact", "RunDecision", "Hashes", "RunOutputs", "RunAttachment"),
        *("AdvisoryInputRef", "RunStatus", "ExplanationStatus", "RiskLevel", "RunStoreV2"),
        *("MigrationReport", "RunAdvisoryLinkV1", "RunLineage"),
    ],
    # All that `runs_v2` and `runs` export, the methods of the store, and what its document quotes.
    "Functions and methods": [
        *("store.put", "store.get", "store.attach_advisory", "store.list_runs", "_path_for"),
        *("utc_now", "create_run_id", "persist_run", "get_run", "list_runs_filtered"),
        *("attach_advisory", "stable_json_dumps", "sha256_of_obj", "sha256_of_text"),
        *("sha256_of_text_safe", "sha256_of_bytes", "sha256_file", "summarize_request"),
        *("compute_feasibility_hash", "put_bytes_attachment", "put_text_attachment"),
        *("put_json_attachment", "get_attachment_path", "load_json_attachment"),
        *("verify_attachment", "diff_runs", "diff_summary", "convert_v1_to_v2"),
        *("convert_v2_to_v1_dict", "validate_v2_artifact", "backup_v1_store", "load_v1_store"),
        *("migrate_v1_to_v2", "verify_migration", "rollback_migration", "migration_status"),
        *("router", "patch_run_meta", "get_store_path", "compute_request_hash"),
        *("compute_canonical_hash", "store_attachment", "list_attachments", "store_artifact"),
        *("persist_run_artifact", "update_run", "resolve_attachment_path"),
    ],
    "Fields": [
        *("explanation_summary", "explanation_status", "advisory_inputs", "request_summary"),
        *("source_advisory_id", "rejected", "rating", "promoted"),
    ],
    "Variables": [
        *("RMOS_RUNS_V2_ENABLED", "RMOS_RUN_STORE_PATH"),
        *(PREFIX + name for name in ORIGINAL_SETTINGS),
    ],
    "Paths": [
        *("services/api/app/rmos/runs_v2/", "services/api/app/rmos/runs/"),
        *("services/api/data/runs/rmos/", "services/api/app/data/runs.json"),
        *("docs/governance/RUN_ARTIFACT_PERSISTENCE_CONTRACT_v1.md", "<run_id>.json.tmp"),
        *("docs/RMOS_RUNS_GOVERNANCE_MIGRATION_PLAN.md", "2025-12-18/run_ghi789jkl012.json"),
        *("run_abc123_advisory_adv_explanation_001.json", "_index.json", "_migration_report.json"),
    ],
    "Commands": [
        "python -m rmos.runs_v2.cli_migrate status",
        "python -m rmos.runs_v2.cli_migrate migrate --dry-run",
        "python -m rmos.runs_v2.cli_migrate migrate",
        "python -m rmos.runs_v2.cli_migrate verify",
        "python -m rmos.runs_v2.cli_migrate rollback --backup-path",
        *("migrate --yes", "migrate --skip-backup", "migrate --stop-on-error"),
        *("rollback --delete-v2", "export RMOS_RUNS_V2_ENABLED=false"),
    ],
    "Routes": [
        *("GET /runs", "POST /runs", "GET /runs/{id}", "GET /runs/diff?a={id}&b={id}"),
        *("POST /runs/{id}/attach-advisory", "GET /runs/{id}/advisories"),
        *("GET /runs/{id}/attachments", "GET /runs/{id}/attachments/{sha256}"),
        *("GET /runs/{id}/attachments/verify", "PATCH /runs/{id}/meta", "offset", "total"),
        *("/api/runs/...", "kind", "batch_label", "session_id", "parent_batch_plan_artifact_id"),
    ],
}


def rows(name: str) -> list[list[str]]:
    """Return the cells of each row of the table below a heading."""
    lines = [line for line in section(DOCUMENT, name).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@pytest.mark.parametrize("name", SECTIONS)
def test_every_name_of_the_original_has_a_row(name: str) -> None:
    listed = [each for row in rows(name) for each in names(row[0])]
    assert sorted(set(SECTIONS[name]) - set(listed)) == []
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize("name", SECTIONS)
def test_a_name_that_is_gone_has_its_reason(name: str) -> None:
    for row in rows(name):
        assert len(row) == 3, row
        original, here, remark = row
        assert names(here) or here == "the same" or (here == "none" and remark), original


def exists(name: str, operations: set[str]) -> bool:
    """Return whether a name of ours that has a form is there; others are taken as they are."""
    if re.fullmatch(r"(pipeline|schemas)(\.\w+)+", name):
        return bool(resolve_name(name))
    if re.match(r"(pipeline|schemas|docs)/", name):
        return (ROOT / name).exists()
    if name.startswith("rmos "):
        return fault_of(name) is None
    if re.match(r"(GET|POST|PUT) /", name):
        return name in operations
    return True


@pytest.mark.parametrize("name", SECTIONS)
def test_every_name_here_exists(name: str) -> None:
    paths = openapi_document("http://127.0.0.1:8080")["paths"]
    operations = {f"{each.upper()} {path}" for path, of in paths.items() for each in of}
    ours = [each for row in rows(name) for each in names(row[1])]
    assert ours
    assert [each for each in ours if not exists(each, operations)] == []


@pytest.mark.parametrize(
    "name", ["pipeline/nowhere.py", "rmos migrate undo", "GET /api/rmos/runs/recent"]
)
def test_a_name_that_does_not_exist_is_found(name: str) -> None:
    assert not exists(name, set())
