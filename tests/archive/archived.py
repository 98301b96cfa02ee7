"""Stores with dates to archive, and the operator who removes what was archived."""

import subprocess
from pathlib import Path

from pipeline.archive.create import CreatedArchive, create_archive
from pipeline.archive.restore import RestoredArchive, restore_archive
from pipeline.archive.verify import VerifiedTar, open_tar, verify_tar
from pipeline.core.progress import no_progress
from pipeline.disk.contents import disk_contents
from pipeline.ledger.reader import StoreLogs
from pipeline.settings import Settings
from pipeline.storage.reader import RunReader, open_reader
from tests.ledger.ledgers import KEYS

DATE = "2025-12-18"


def logs(root: Path) -> StoreLogs:
    return StoreLogs(disk_contents(root), KEYS)


def create(root: Path, tar: Path, *dates: str) -> CreatedArchive:
    return create_archive(Settings(data_dir=root), logs(root), dates or (DATE,), tar, no_progress)


def verify(root: Path, tar: Path) -> VerifiedTar:
    with open_tar(tar) as file:
        return verify_tar(tar, file, logs(root), no_progress)


def restore(root: Path, tar: Path) -> RestoredArchive:
    return restore_archive(tar, logs(root), no_progress)


def remove(archive: CreatedArchive) -> None:
    """Do what the command says, as an operator does."""
    subprocess.run(["bash", "-ec", archive.removal], check=True)


def reader(root: Path) -> RunReader:
    return open_reader(root)
