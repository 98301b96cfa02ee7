"""The file of a v1 store is read as it is, or refused with the place of what is wrong."""

import hashlib
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.legacy.v1.text import format_row, format_rows, read_rows

REAL = Path(__file__).parents[3] / "shared" / "data" / "v1" / "runs.json"


def test_rows_come_with_the_hash_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "runs.json"
    path.write_bytes(b'{"run_1": {"status": "OK"}}')
    found, file_sha256 = read_rows(path)
    assert (len(found), [row.run_id for row in found]) == (1, ["run_1"])
    assert file_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_is_no_v1_store_is_refused_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "runs.json"
    with pytest.raises(InputError, match=r"runs\.json cannot be read: No such file"):
        read_rows(path)
    path.write_bytes(b'{"run_1": {},\n "run_2"')
    with pytest.raises(InputError, match=r"the end of the file at line 2, byte 22\."):
        read_rows(path)
    with pytest.raises(InputError, match=r"cannot be read: a folder\."):
        read_rows(tmp_path)


@pytest.mark.skipif(
    not REAL.exists(), reason="the real rows of v1 (shared/data beside the repository) are not here"
)
def test_the_real_rows_are_read_and_written_again_to_the_same_bytes() -> None:
    found, _ = read_rows(REAL)
    assert len(found) == 13
    assert {row.value()["run_id"] == row.run_id for row in found} == {True}
    again = format_rows({row.run_id: format_row(row.value()) for row in found})
    assert again == REAL.read_bytes()
