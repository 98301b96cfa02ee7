"""Trusted checkpoints in a folder: all of them, or a sentence that names the file."""

from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.ledger.tlog.checkpoints import Checkpoint, sign_checkpoint, write_trusted
from pipeline.ledger.witnessed import trusted_checkpoints
from tests.ledger.tlog.signers import signer

FIRST, SECOND, OTHER = (
    Checkpoint("rmos/a/1/t/0", 5, b"1" * 32),
    Checkpoint("rmos/a/1/t/0", 9, b"2" * 32),
    Checkpoint("rmos/a/1/t/1", 3, b"3" * 32),
)


def write(path: Path, *checkpoints: Checkpoint, seed: int = 1) -> None:
    path.write_bytes(
        write_trusted(sign_checkpoint(each, [signer(seed=seed)]) for each in checkpoints)
    )


def test_all_files_count_whoever_signed_them(tmp_path: Path) -> None:
    write(tmp_path / "monday", FIRST, OTHER)
    write(tmp_path / "tuesday", SECOND, seed=2)
    (tmp_path / ".hidden").write_bytes(b"of an editor")
    assert trusted_checkpoints(tmp_path) == [FIRST, OTHER, SECOND]


def test_without_a_folder_nobody_holds_anything() -> None:
    assert trusted_checkpoints(None) == []


def test_a_file_of_something_else_is_named(tmp_path: Path) -> None:
    (tmp_path / "readme").write_bytes(b"hello")
    with pytest.raises(InputError, match="readme"):
        trusted_checkpoints(tmp_path)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        trusted_checkpoints(tmp_path / "nowhere")
