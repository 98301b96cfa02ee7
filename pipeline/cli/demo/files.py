"""The chapters of the disk: an artifact, its hash, and every file that was written."""

import json
import shutil
import subprocess
from pathlib import Path

from pipeline.cli.demo.screen import Screen
from pipeline.core.hashing import sha256_of_bytes
from pipeline.errors import IntegrityError
from schemas.run_event import RunEvent


def show_artifact(root: Path, event: RunEvent, screen: Screen) -> None:
    """Print an artifact in a form for reading; its file is one line."""
    assert event.artifact_path is not None
    screen.chapter(f"One artifact: {event.artifact_path}")
    screen.document(json.loads((root / event.artifact_path).read_bytes()))


def check_hash(root: Path, event: RunEvent, screen: Screen) -> None:
    """Let a program that knows nothing of us hash an artifact.

    Raises:
        IntegrityError: It has another hash than its event says.
    """
    assert event.artifact_path is not None
    screen.chapter("Its hash, checked without this program")
    found = _found_hash(root, event.artifact_path, screen)
    screen.line(f"  {found}")
    screen.line(f"  {event.artifact_sha256}  as the event says")
    if found != event.artifact_sha256:
        message = f"{event.artifact_path} has another hash than its event says."
        raise IntegrityError(message)


def _found_hash(root: Path, path: str, screen: Screen) -> str:
    program = shutil.which("sha256sum")
    if program is None:
        screen.note("there is no sha256sum on this machine; Python's hashlib says")
        return sha256_of_bytes((root / path).read_bytes())
    screen.command(f"sha256sum {path}")
    done = subprocess.run([program, path], cwd=root, check=True, capture_output=True, text=True)
    return done.stdout.split()[0]


def show_files(root: Path, screen: Screen) -> None:
    """Print mode, size and path of every file."""
    screen.chapter("Everything that was written: each file once, read-only")
    for folder in ("runs", "attachments", "quarantine"):
        for path in sorted((root / folder).rglob("*")):
            if path.is_file():
                mode = path.stat().st_mode & 0o777
                size = path.stat().st_size
                screen.line(f"  {mode:04o} {size:>9,}  {path.relative_to(root)}")
