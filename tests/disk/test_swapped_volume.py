"""A copy of the volume that is mounted in its place under an open store, as from a snapshot.

Each file of the copy has the number of the inode that it has on the volume.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import StoreError
from tests.builders import run_request
from tests.disk.mounts import mounted, run_program, why_not
from tests.storage.stores import judged_record, kinds, make_store, opened

IMAGE_BYTES = 32 << 20


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Give an image with an empty file system, or say why none can be mounted here."""
    reason = why_not("mkfs.ext4")
    if reason is not None:
        pytest.skip(reason)
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    try:
        run_program("mkfs.ext4", "-q", "-F", str(image))
        with mounted(tmp_path / "trial", "-o", "loop", str(image)):
            pass
    except OSError as error:
        pytest.skip(f"no image can be mounted here: {error}")
    return image


def swap(image: Path, root: Path) -> None:
    """Mount what the volume holds now, and a copy of it in its place."""
    run_program("sync", "--file-system", str(root))
    copy = Path(shutil.copyfile(image, image.with_name("copy")))
    run_program("umount", "--lazy", str(root))
    run_program("mount", "-o", "loop", str(copy), str(root))


@pytest.fixture
def root(image: Path, tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "store", "-o", "loop", str(image)) as root:
        make_store(root)
        yield root


def test_a_writer_stores_nothing_in_a_copy_of_its_volume(image: Path, root: Path) -> None:
    first, second = (judged_record(run_request(run_id=f"run_{n}"), n) for n in range(2))
    with opened(root) as store:
        assert kinds(store.commit([first])) == ["persisted"]
        swap(image, root)
        with pytest.raises(StoreError, match="nothing was acknowledged; start again"):
            store.commit([second])
        assert [path.name for path in root.glob("runs/*/*")] == ["run_0.json"]
