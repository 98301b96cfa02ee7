"""The chapter of the evidence: one file about one run, checked without this program."""

import subprocess
import sys
from contextlib import closing
from importlib.resources import files
from pathlib import Path

from pipeline.cli.demo.screen import Screen
from pipeline.cli.trusted_keys import open_logs
from pipeline.errors import IntegrityError
from pipeline.evidence.bundle import write_evidence
from pipeline.evidence.gather import gather_evidence
from pipeline.settings import Settings
from pipeline.storage.reader import RunReader
from schemas.run_event import RunEvent


def show_evidence(settings: Settings, run: RunEvent, folder: Path, screen: Screen) -> None:
    """Write the evidence about a run to `folder`, and let the bare Python check it there.

    Raises:
        IntegrityError: The evidence does not prove the run.
    """
    assert run.run_id is not None
    screen.chapter("Evidence about the GREEN one, for somebody who trusts nobody")
    screen.command(f"rmos evidence {run.run_id}")
    logs = open_logs(settings, None)
    bundle = folder / f"evidence-{run.run_id}.zip"
    with closing(RunReader(settings.data_dir)) as reader:
        found = gather_evidence(reader, logs, run.run_id)
        write_evidence(bundle, found, reader.attachments)
    screen.note(f"{bundle.stat().st_size:,} bytes: artifact, leaf, proof, page, verifier")
    verifier = folder / "verify.py"
    verifier.write_bytes((files("pipeline.evidence.verifier") / "verify.py").read_bytes())
    _verify(folder, bundle.name, str(found.keys[0]), screen)


def _verify(folder: Path, bundle: str, vkey: str, screen: Screen) -> None:
    screen.command(f'python3 -I -S verify.py {bundle} --key "$VKEY"')
    done = subprocess.run(
        [sys.executable, "-I", "-S", "verify.py", bundle, "--key", vkey],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
    )
    for line in (done.stdout + done.stderr).splitlines():
        screen.line(f"  {line}")
    if done.returncode:
        message = f"The evidence was refused with the exit status {done.returncode}."
        raise IntegrityError(message)
