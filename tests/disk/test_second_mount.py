"""A volume that another host has mounted: ext4 with `mmp` refuses it, and without `mmp` does not.

Of two loop devices over one image the kernel knows as little as two hosts of one volume.
"""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.disk.mounts import mounted, run_program, why_not

IMAGE_BYTES = 64 << 20


def image_with(folder: Path, *features: str) -> Path:
    image = folder / "image"
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    run_program("mkfs.ext4", "-q", "-F", *features, str(image))
    return image


@contextmanager
def attached(image: Path) -> Iterator[str]:
    """Attach an image once more, as to one more host; give the device."""
    # Not by `mount -o loop`: that finds the device that the image has already.
    words = ["losetup", "--find", "--show", str(image)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(words)}: {done.stderr.strip()}")
    device = done.stdout.strip()
    try:
        yield device
    finally:
        run_program("losetup", "--detach", device)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder, or say why no image can be mounted here."""
    reason = why_not("mkfs.ext4", "losetup")
    if reason is not None:
        pytest.skip(reason)
    try:
        with attached(image_with(tmp_path)) as device, mounted(tmp_path / "trial", device):
            pass
    except OSError as error:
        pytest.skip(f"no image can be mounted here: {error}")
    return tmp_path


# ext4 looks twice whether another host still writes to it, for eleven seconds each at the least.
@pytest.mark.slow
def test_a_volume_with_mmp_is_mounted_by_one_host_and_after_its_death_by_the_other(
    folder: Path,
) -> None:
    image = image_with(folder, "-O", "mmp", "-E", "mmp_update_interval=1")
    with attached(image) as device, mounted(folder / "old", device) as old:
        (old / "store.json").write_text("{}", encoding="utf-8")
        run_program("sync", "--file-system", str(old))
        with (
            attached(image) as second,
            pytest.raises(OSError, match="already mounted"),
            mounted(folder / "other", second),
        ):
            pytest.fail("it is mounted twice")
        # What the volume has when the host dies, which has told nobody that it is done.
        left = Path(shutil.copyfile(image, folder / "left"))
    with attached(left) as device, mounted(folder / "heir", device) as heir:
        assert (heir / "store.json").read_text(encoding="utf-8") == "{}"


def test_a_volume_without_mmp_is_mounted_by_two_hosts(folder: Path) -> None:
    image = image_with(folder, "-O", "^mmp")
    with (
        attached(image) as first,
        mounted(folder / "old", first),
        attached(image) as second,
        mounted(folder / "other", second) as other,
    ):
        assert other.is_mount()
