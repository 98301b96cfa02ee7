"""What `docs/evidence.md` and the sums of `docs/storage-format.md` show is what happens."""

import re
import subprocess
import zipfile
from pathlib import Path

import pytest

from pipeline.cli.demo.requests import demo_requests
from pipeline.core.envelope import Rejected
from pipeline.core.record import RecordId, RecordSource
from pipeline.core.runs.verdict import JudgedRun, judge_run_record
from pipeline.evidence.verifier import verify
from pipeline.storage.batch_plan import JudgedRecord
from pipeline.storage.checksums import root_of_lines
from pipeline.storage.run_store import RunStore
from pipeline.storage.store import open_store_to_write
from tests.docs.test_documents import _FENCED, section, text_of
from tests.evidence.verifier.bundles import VKEY, checkpoints_now, make_bundle
from tests.ledger.ledgers import ledger
from tests.storage.stores import TIMESTAMP_MS, make_store

RUN = "run_demo_green"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a store of the demo's requests, a bundle, the checkpoints and the verifier."""
    folder = tmp_path_factory.mktemp("auditor")
    root = folder / "store"
    make_store(root)
    records = []
    for offset, request in enumerate(demo_requests()):
        verdict = judge_run_record(request.key, request.value)
        assert isinstance(verdict, JudgedRun | Rejected)
        place = RecordSource(1, RecordId("rmos.runs.requests", 0, offset))
        records.append(JudgedRecord.of(place, verdict, request.value, TIMESTAMP_MS))
    store = RunStore(open_store_to_write(root), ledger=ledger(root))
    store.commit(records)
    store.close()
    bundle = make_bundle(root, folder / f"evidence-{RUN}.zip", RUN)
    (folder / "trusted.txt").write_bytes(checkpoints_now(root))
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(folder / "unpacked")
    (folder / "verify.py").write_bytes(Path(verify.__file__).read_bytes())
    return folder


def run(script: str, folder: Path) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "VKEY": VKEY, "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def shown(text: str) -> list[str]:
    """Return the blocks of output in a text, without their indent."""
    blocks = re.findall(r"(?:^    .*\n)+", _FENCED.sub("", text), re.MULTILINE)
    return [re.sub("^    ", "", block, flags=re.MULTILINE) for block in blocks]


def test_the_verifier_prints_what_the_document_shows(folder: Path) -> None:
    text = section(text_of("evidence.md"), "In two minutes")
    (command,) = _FENCED.findall(text)
    assert run(command, folder) == shown(text)[0]


def test_leaf_signature_and_files_are_checked_without_our_programs(folder: Path) -> None:
    by_hand, signature, files = _FENCED.findall(
        section(text_of("evidence.md"), "Without our programs")
    )
    unpacked = folder / "unpacked"
    one, two = run(by_hand, unpacked).splitlines()
    assert one == two
    assert run(signature, unpacked) == "Signature Verified Successfully\n"
    checked = run(files, unpacked).splitlines()
    assert f"files/runs/2025-12-18/{RUN}.json: OK" in checked
    with zipfile.ZipFile(folder / f"evidence-{RUN}.zip") as archive:
        assert len(checked) == len(archive.namelist()) - 1


def test_a_changed_leaf_and_a_changed_text_are_found_without_our_programs(
    folder: Path, tmp_path: Path
) -> None:
    by_hand, signature, _ = _FENCED.findall(section(text_of("evidence.md"), "Without our programs"))
    with zipfile.ZipFile(folder / f"evidence-{RUN}.zip") as archive:
        archive.extractall(tmp_path)
    for name in ("run.leaf", "run.tlog-proof"):
        path = tmp_path / "records" / name
        path.chmod(0o644)
    (tmp_path / "records/run.leaf").write_bytes(b"{}")
    one, two = run(by_hand, tmp_path).splitlines()
    assert one != two
    proof = (tmp_path / "records/run.tlog-proof").read_text(encoding="utf-8")
    (tmp_path / "records/run.tlog-proof").write_text(
        proof.replace("/requests/0\n8\n", "/requests/0\n9\n").replace("\n8\n", "\n9\n"),
        encoding="utf-8",
    )
    with pytest.raises(AssertionError):
        run(signature, tmp_path)


def test_the_checkpoint_shown_is_the_one_that_is_handed_out(folder: Path) -> None:
    text, signature = shown(section(text_of("evidence.md"), "The checkpoints"))
    start = f"{text}\n{signature.partition('...')[0]}"
    assert (folder / "trusted.txt").read_text(encoding="utf-8").startswith(start)


def test_the_worked_store_root_is_what_program_and_shell_compute(tmp_path: Path) -> None:
    text = section(text_of("storage-format.md"), "Sums and the store root")
    lines, hashes = shown(text)
    root = hashes.splitlines()[-1]
    assert root_of_lines(lines.splitlines()).hex() == root
    (tmp_path / "sums").write_text(lines + lines, encoding="utf-8")
    (command,) = _FENCED.findall(text)
    assert run(command, tmp_path) == f"{root}\n"
    leaves = [verify.leaf_hash(line.encode()) for line in lines.splitlines()]
    node = verify.node_hash(*leaves[:2])
    assert hashes.split() == [each.hex() for each in (*leaves, node, bytes.fromhex(root))]
