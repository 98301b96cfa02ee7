"""What commands and killed processes leave in a store is no unexpected file for an audit of it."""

import os
from pathlib import Path

import pytest

from pipeline.audit.journal import AuditJournal
from pipeline.disk.durable_files import DurableFiles
from pipeline.disk.locks import MIGRATION_LOCK, exclusive_lock
from pipeline.disk.small_files import temporary_name
from pipeline.disk.store_identity import begin_epoch
from pipeline.storage.attachments import AttachmentFiles
from pipeline.storage.index.replacement import new_index
from tests.audit.audited import audit
from tests.cli.command_line import CommandLine
from tests.cli.test_ledger_proofs import key_file
from tests.evidence.proven_stores import proven_store

RUN_FILE = "runs/2025-12-18/saw_1.json"
COMMANDS = [
    "store status",
    "index check",
    "runs list",
    "runs show saw_1",
    "runs diff saw_1 saw_red",
    "runs download saw_1",
    "runs advisories saw_1",
    "runs attachments saw_1",
    "runs verify saw_1",
    "runs export --to runs.zip",
    "attachments put blob",
    f"audit file store/{RUN_FILE}",
    "ledger checkpoint",
    "ledger verify --trusted trusted",
    "ledger prove saw_1",
    "ledger checksums",
    "ledger rotate",
    "evidence saw_1",
    "broker status",
]


@pytest.fixture
def proven(rmos: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    proven_store(rmos.data_dir)
    rmos.set("RMOS_LEDGER_KEY_FILE", str(key_file(tmp_path / "key.pem")))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "blob").write_bytes(b"blob")
    (tmp_path / "trusted").write_bytes(rmos("ledger", "checkpoint").out)
    return rmos


def unexpected(root: Path) -> list[str]:
    found = audit(root)
    return [each.path for each in found.findings if each.code in {"STRANGE_FILE", "MODE_DIFFERS"}]


def test_no_command_leaves_an_unexpected_file(proven: CommandLine) -> None:
    ended = {command: proven(*command.split()).status for command in COMMANDS}
    assert {command: status for command, status in ended.items() if status not in {0, 3}} == {}
    assert unexpected(proven.data_dir) == []


def migrate(root: Path) -> None:
    with exclusive_lock(root / MIGRATION_LOCK):
        pass


def rebuild_killed(root: Path) -> None:
    # A process that is killed closes nothing: the log of the new index stays.
    with new_index(root):
        names = [root / f"index.sqlite3.rebuilt{end}" for end in ("", "-wal", "-shm")]
        kept = {name: name.read_bytes() for name in names if name.exists()}
    for name, content in kept.items():
        name.write_bytes(content)


def upload_killed(root: Path) -> None:
    upload = AttachmentFiles(DurableFiles.untried(root)).begin()
    upload.write(b"x")
    (root / f".{os.urandom(16).hex()}.upload").write_bytes(b"x")
    upload.end()


def file_killed(root: Path) -> None:
    (root / temporary_name()).write_bytes(b"x")


def epoch_begun(root: Path) -> None:
    begin_epoch(root, cluster_id="other")


def audit_begun(root: Path) -> None:
    journal = AuditJournal.take(root, "audit-1")
    assert journal is not None
    journal.close()


LEFT = [migrate, rebuild_killed, upload_killed, file_killed, epoch_begun, audit_begun]


def test_what_a_process_leaves_is_no_unexpected_file(proven: CommandLine) -> None:
    for leave in LEFT:
        leave(proven.data_dir)
    assert unexpected(proven.data_dir) == []
