"""A new file has its name once it is whole, and no file of before loses its own."""

import os
import stat
from pathlib import Path

import pytest

from pipeline.disk import small_files
from pipeline.disk.small_files import new_file
from pipeline.disk.system_calls import SystemCalls


@pytest.fixture(params=["unnamed", "named"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if request.param == "named":
        monkeypatch.setattr(small_files, "supports_unnamed_files", lambda *_: False)
    return tmp_path


def names(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir() if not each.name.startswith(".")]


def test_a_new_file_appears_whole(folder: Path) -> None:
    with new_file(folder / "a", 0o444) as file:
        file.write(b"half")
        assert names(folder) == []
        file.seek(0)
        file.write(b"whole")
    assert (folder / "a").read_bytes() == b"whole"
    assert stat.S_IMODE((folder / "a").stat().st_mode) == 0o444
    assert os.listdir(folder) == ["a"]


def test_a_block_that_fails_leaves_nothing(folder: Path) -> None:
    def write() -> None:
        with new_file(folder / "a", 0o444) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert os.listdir(folder) == []


def test_a_file_that_came_meanwhile_stays(folder: Path) -> None:
    def write() -> None:
        with new_file(folder / "a", 0o444) as file:
            file.write(b"ours")
            (folder / "a").write_bytes(b"theirs")

    with pytest.raises(FileExistsError):
        write()
    assert (folder / "a").read_bytes() == b"theirs"
    assert os.listdir(folder) == ["a"]


def test_its_bytes_are_durable_before_it_has_a_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for name in ("fsync", "link_unnamed", "link_named"):
        made = getattr(SystemCalls, name)

        def call(*given: object, name: str = name, made: object = made) -> None:
            calls.append(name.partition("_")[0])
            made(*given)  # type: ignore[operator]

        monkeypatch.setattr(SystemCalls, name, call)
    with new_file(folder / "a", 0o444):
        pass
    assert calls == ["fsync", "link", "fsync"]
