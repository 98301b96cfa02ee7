"""Backups of a v1 store: copies that their own names check."""

import os
from pathlib import Path

import pytest

from pipeline.errors import InputError, IntegrityError, NotFoundError, StoreError
from pipeline.legacy.backup import (
    backups_of,
    check_backup,
    keep_replaced,
    make_backup,
)
from tests.builders import sha256


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "runs.json"
    path.write_bytes(b"{}")
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_backup_is_a_read_only_copy_named_by_its_hash(source: Path) -> None:
    backup = make_backup(source, sha256(b"{}"))
    assert backup.name == f"runs.json.rmos-backup-{sha256(b'{}')}"
    assert backup.read_bytes() == b"{}"
    assert backup.stat().st_mode & 0o777 == 0o444
    assert names(source.parent) == ["runs.json", backup.name]


def test_the_same_bytes_have_one_backup(source: Path) -> None:
    first = make_backup(source, sha256(b"{}"))
    before = first.stat()
    assert make_backup(source, sha256(b"{}")) == first
    assert first.stat() == before


def test_a_file_that_changes_while_it_is_read_gets_no_backup(source: Path) -> None:
    with pytest.raises(InputError, match="changed while"):
        make_backup(source, sha256(b"other"))
    assert names(source.parent) == ["runs.json"]


def test_a_backup_with_other_bytes_is_found_and_left(source: Path) -> None:
    backup = make_backup(source, sha256(b"{}"))
    backup.chmod(0o600)
    backup.write_bytes(b"[]")
    for check in (lambda: check_backup(backup), lambda: make_backup(source, sha256(b"{}"))):
        with pytest.raises(IntegrityError, match="Expected the backup"):
            check()
    assert backup.read_bytes() == b"[]"


def test_only_a_backup_is_taken_for_one(source: Path) -> None:
    with pytest.raises(InputError, match="Expected a backup named"):
        check_backup(source)
    with pytest.raises(NotFoundError):
        check_backup(source.with_name(f"runs.json.rmos-backup-{'0' * 64}"))


def test_backups_are_listed_newest_first_and_those_of_other_files_are_not(source: Path) -> None:
    first = make_backup(source, sha256(b"{}"))
    source.write_bytes(b'{"a":{}}')
    second = make_backup(source, sha256(b'{"a":{}}'))
    os.utime(first, ns=(1, 1))
    (source.parent / f"other.json.rmos-backup-{'0' * 64}").write_bytes(b"")
    assert backups_of(source) == [second, first]
    assert backups_of(source, source.parent / "nowhere") == []


def test_a_folder_that_takes_no_backup_is_a_fault_of_the_disk(source: Path) -> None:
    with pytest.raises(StoreError, match="--backup-dir"):
        make_backup(source, sha256(b"{}"), source.parent / "nowhere")


def test_what_is_replaced_is_kept_unless_it_is_what_takes_its_place(source: Path) -> None:
    assert keep_replaced(source, sha256(b"{}")) is None
    kept = keep_replaced(source, sha256(b"other"))
    assert kept is not None
    assert kept.read_bytes() == b"{}"
    assert keep_replaced(source, sha256(b"other")) == kept
    assert keep_replaced(source.with_name("nothing"), sha256(b"")) is None
    assert backups_of(source) == []
