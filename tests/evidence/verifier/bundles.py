"""Bundles to test with, in memory, and the verifier as an auditor runs it."""

import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.evidence.bundle import write_evidence
from pipeline.evidence.gather import gather_evidence
from pipeline.ledger.tlog.checkpoints import Checkpoint, write_trusted
from pipeline.storage.reader import open_reader
from tests.builders import sha256
from tests.evidence.proven_stores import logs
from tests.ledger.ledgers import SIGNER

VKEY = str(SIGNER.key)
_FIXED = (1980, 1, 1, 0, 0, 0)


def make_bundle(
    root: Path, path: Path, run_id: str = "saw_1", trusted: Mapping[str, Checkpoint] | None = None
) -> Path:
    """Make the bundle of a run of the store at `root`."""
    reader = open_reader(root)
    try:
        evidence = gather_evidence(reader, logs(root), run_id, trusted)
        write_evidence(path, evidence, reader.attachments)
    finally:
        reader.close()
    return path


def members(path: Path) -> dict[str, bytes]:
    """Return the files of a bundle."""
    with zipfile.ZipFile(path) as bundle:
        return {name: bundle.read(name) for name in bundle.namelist()}


def listed(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return files with SHA256SUMS made anew, as somebody does who changes a bundle with care."""
    hashes = {name: sha256(files[name]) for name in sorted(files) if name != "SHA256SUMS"}
    sums = "".join(f"{digest}  {name}\n" for name, digest in hashes.items())
    return {**files, "SHA256SUMS": sums.encode()}


def write_members(path: Path, files: Mapping[str, bytes]) -> Path:
    """Write a bundle of other files."""
    with zipfile.ZipFile(path, "w") as bundle:
        for name, content in files.items():
            bundle.writestr(zipfile.ZipInfo(name, _FIXED), content)
    return path


def checkpoints_now(root: Path) -> bytes:
    """Return what the store hands out now."""
    return write_trusted(each.note for each in logs(root).open_all())


@dataclass(frozen=True, slots=True)
class Verdict:
    status: int
    text: str


def verify_alone(
    *arguments: str | Path, folder: Path, verifier: Path, python: str = sys.executable
) -> Verdict:
    """Run the verifier with nothing but the standard library, in a folder without our code."""
    done = subprocess.run(
        [python, "-I", "-S", verifier, *arguments],
        cwd=folder,
        env={"PATH": "/nowhere", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.stderr == "", done.stderr
    return Verdict(done.returncode, done.stdout)


def words(arguments: Sequence[str | Path]) -> list[str]:
    """Return arguments as `main` takes them."""
    return [str(each) for each in arguments]
