"""File systems that are mounted for one test and never stay behind."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def why_not(*programs: str) -> str | None:
    """Return why nothing can be mounted here, as far as it can be told without trying."""
    if os.geteuid() != 0:
        return "mounting needs root"
    missing = [name for name in ("mount", "umount", *programs) if shutil.which(name) is None]
    return f"not installed: {', '.join(missing)}" if missing else None


def run_program(*words: str) -> None:
    """Run a program.

    Raises:
        OSError: It failed.
    """
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(words)}: {done.stderr.strip()}")


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """Mount with `options` at `folder`, which is made; a loop device goes with it."""
    folder.mkdir()
    run_program("mount", *options, str(folder))
    try:
        yield folder
    finally:
        try:
            run_program("umount", str(folder))
        except OSError:
            # A file is still open, which is a fault; but nothing may stay in the folder that
            # pytest clears away later.
            run_program("umount", "--lazy", str(folder))
            raise
