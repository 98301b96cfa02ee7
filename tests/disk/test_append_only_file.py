"""A file that one process at a time appends to, until it is sealed."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.disk.append_only_file import AppendOnlyFile, SealedError, seal_file

PATH = "audits/a.ndjson"


def taken(root: Path) -> AppendOnlyFile:
    file = AppendOnlyFile.take(root, PATH)
    assert file is not None
    return file


def test_what_was_appended_is_there_for_the_next_who_takes_it(tmp_path: Path) -> None:
    first = taken(tmp_path)
    first.append(b"1\n2\n")
    first.flush()
    assert AppendOnlyFile.take(tmp_path, PATH) is None, "one at a time"
    first.close()
    second = taken(tmp_path)
    assert list(second.lines()) == [b"1\n", b"2\n"]
    second.cut(2)
    second.append(b"3\n")
    second.close()
    assert (tmp_path / PATH).read_bytes() == b"1\n3\n"


def test_a_sealed_file_is_not_appended_to(tmp_path: Path) -> None:
    taken(tmp_path).close()
    seal_file(tmp_path, PATH)
    assert stat.S_IMODE((tmp_path / PATH).stat().st_mode) == 0o444
    with pytest.raises(SealedError):
        AppendOnlyFile.take(tmp_path, PATH)
    seal_file(tmp_path, "audits/missing.ndjson")


@pytest.mark.parametrize("put", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("target")])
def test_something_else_in_its_place_is_no_such_file(
    tmp_path: Path, put: Callable[[Path], None]
) -> None:
    (tmp_path / "audits").mkdir()
    (tmp_path / "audits/target").write_bytes(b"untouched")
    put(tmp_path / PATH)
    with pytest.raises(SealedError):
        AppendOnlyFile.take(tmp_path, PATH)
    assert (tmp_path / "audits/target").read_bytes() == b"untouched"
