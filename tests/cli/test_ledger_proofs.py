"""`rmos ledger checkpoint`, `verify`, `prove`, `sums` and `rmos evidence`, as a shell sees them."""

import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from pipeline.evidence.verifier import verify
from pipeline.ledger.tlog.checkpoints import parse_trusted
from pipeline.ledger.tlog.notes import parse_vkey
from pipeline.ledger.tlog.proofs import parse_tlog_proof
from pipeline.storage.checksums import store_root
from tests.builders import run_request, sha256
from tests.cli.command_line import CommandLine
from tests.evidence.proven_stores import REQUESTS, SHARED, change, go_on, logs, proven_store
from tests.evidence.verifier.bundles import VKEY, checkpoints_now
from tests.ledger.ledgers import SIGNER, STORE_ID, damage
from tests.ledger.tlog.signers import signer
from tests.storage.stores import make_store

ORIGIN = f"rmos/{STORE_ID}/1/rmos.runs.requests/0"
OTHER = signer(SIGNER.name, seed=2)
ARTIFACT = "runs/2025-12-18/saw_1.json"


def key_file(path: Path, seed: int = 1) -> Path:
    key = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    return path


@pytest.fixture
def proven(rmos: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """Give the command line over a store with a ledger, its own key, and a folder to work in."""
    proven_store(rmos.data_dir)
    rmos.set("RMOS_LEDGER_KEY_FILE", str(key_file(tmp_path / "key.pem")))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return rmos


@pytest.fixture
def trusted(proven: CommandLine) -> str:
    """Print the checkpoints into a file; return its name."""
    Path("trusted").write_bytes(proven("ledger", "checkpoint").out)
    return "trusted"


# checkpoint


def test_checkpoint_prints_every_log_and_nothing_else(proven: CommandLine) -> None:
    done = proven("ledger", "checkpoint")
    assert done.status == 0
    assert done.out == checkpoints_now(proven.data_dir)
    assert len(parse_trusted(done.out)) == 4
    assert done.err == "4 logs with 11 leaves\n"


def test_checkpoint_of_a_store_without_a_log_is_not_found(rmos: CommandLine) -> None:
    make_store(rmos.data_dir)
    done = rmos("ledger", "checkpoint", "--key", VKEY)
    assert done.status == 3
    assert done.sentence.endswith("has no log yet: there is no checkpoint to hand out.")


def test_a_checkpoint_that_the_key_did_not_sign_is_not_handed_out(proven: CommandLine) -> None:
    done = proven("ledger", "checkpoint", "--key", str(OTHER.key))
    assert done.status == 5
    assert "expected a signature of" in done.sentence


COMMANDS = [
    "ledger checkpoint",
    "ledger prove saw_1",
    "ledger checksums",
    "evidence saw_1",
]


def test_without_a_key_each_says_what_to_do(proven: CommandLine) -> None:
    proven.set("RMOS_LEDGER_KEY_FILE", "/nowhere/key.pem")
    done = {command: proven(*command.split()) for command in COMMANDS}
    missing = "There is no ledger key at /nowhere/key.pem: run rmos ledger init."
    assert {(each.status, each.sentence) for each in done.values()} == {(6, missing)}
    given = {command: proven(*command.split(), "--key", VKEY).status for command in COMMANDS}
    assert given == dict.fromkeys(COMMANDS, 0)


def test_what_is_no_key_cannot_be_used(proven: CommandLine) -> None:
    done = [proven(*command.split(), "--key", "rmos+1") for command in COMMANDS]
    assert [each.status for each in done] == [2] * len(COMMANDS)
    expected = "--key: expected a vkey <name>+<key id>+<key>"
    assert all(each.sentence.startswith(expected) for each in done)


def test_a_folder_without_a_store_is_refused(rmos: CommandLine) -> None:
    rmos.data_dir.mkdir()
    assert {command: rmos(*command.split()).status for command in COMMANDS} == dict.fromkeys(
        COMMANDS, 6
    )
    assert list(rmos.data_dir.iterdir()) == []


# verify


def test_verify_says_what_it_rests_on(proven: CommandLine, trusted: str) -> None:
    go_on(proven.data_dir, requests=[(0, run_request(run_id="later")), (7, run_request())], start=4)
    done = proven("ledger", "verify", "--trusted", trusted)
    assert done.status == 0
    lines = done.text.splitlines()
    assert lines[0].split("\t") == ["log", "trusted", "now", "result"]
    assert "1/rmos.runs.requests/0\t4\t5\tbegins with the trusted checkpoint" in lines
    assert done.err == (
        "4 of 4 logs begin with their trusted checkpoint.\n"
        "Newer than the trusted checkpoints, so not read: 1 leaf.\n"
        "Not in trusted, so keep their checkpoints from now on: 1 more.\n"
        "Signatures were checked with the store's own key: the proof rests on nobody having "
        "changed trusted since. Give --key to rest it on a key of your own too.\n"
    )
    assert "own key" not in proven("ledger", "verify", "--trusted", trusted, "--key", VKEY).err


def test_the_older_name_of_the_option_still_works(proven: CommandLine, trusted: str) -> None:
    assert proven("ledger", "verify", "--held", trusted).status == 0
    assert proven("evidence", "saw_1", "--held", trusted, "-o", "older.zip").status == 0


def test_verify_as_json(proven: CommandLine, trusted: str) -> None:
    document = proven("ledger", "verify", "--trusted", trusted, "--json").document
    assert document["ok"] is True
    assert document["not_held"] == []
    (log,) = [each for each in document["logs"] if each["origin"] == ORIGIN]
    assert log == {"origin": ORIGIN, "held_size": 4, "size": 4, "fault": None, "ok": True}


def test_verify_reads_the_leaves_that_it_vouches_for(proven: CommandLine, trusted: str) -> None:
    damage(proven.data_dir / "ledger/1/rmos.runs.requests-0/tile/entries/000.p/4")
    done = proven("ledger", "verify", "--trusted", trusted)
    assert done.status == 5
    assert "expected leaf 3 in tile/entries/000.p/4 to have the hash" in done.text
    assert "3 of 4 logs begin with their trusted checkpoint." in done.err


def test_verify_ends_with_5_and_names_each_log_that_is_another(
    proven: CommandLine, trusted: str, tmp_path: Path
) -> None:
    forged = [(0, run_request(run_id="saw_1", notes="forged")), *REQUESTS[1:]]
    proven_store(tmp_path / "forged", requests=forged)
    shutil.rmtree(proven.data_dir / "ledger")
    shutil.copytree(tmp_path / "forged/ledger", proven.data_dir / "ledger")
    done = proven("ledger", "verify", "--trusted", trusted)
    assert done.status == 5
    assert "1/rmos.runs.requests/0\t4\t4\tother root: expected " in done.text
    assert "3 of 4 logs begin with their trusted checkpoint." in done.err
    shutil.rmtree(proven.data_dir / "ledger/1/rmos.runs.requests-2")
    document = proven("ledger", "verify", "--trusted", trusted, "--json").document
    faults = [each["fault"] for each in document["logs"] if not each["ok"]]
    assert faults[1] == "origin missing: the store has no such log"
    assert document["ok"] is False


def test_verify_by_a_key_that_signed_nothing_ends_with_5(proven: CommandLine, trusted: str) -> None:
    done = proven("ledger", "verify", "--trusted", trusted, "--key", str(OTHER.key))
    assert done.status == 5
    assert done.text.count("the trusted checkpoint is signed by an unknown key") == 4


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"\xff", b"a\n0\nb\n\nc\n"])
def test_what_holds_no_checkpoints_cannot_be_read(proven: CommandLine, content: bytes) -> None:
    Path("trusted").write_bytes(content)
    for command in (("ledger", "verify"), ("evidence", "saw_1")):
        done = proven(*command, "--trusted", "trusted")
        assert done.status == 2
        assert "trusted holds no checkpoints as rmos ledger checkpoint prints them" in done.sentence
        assert proven(*command, "--trusted", "nowhere").status == 2
    assert list(Path().iterdir()) == [Path("trusted")]


# prove


def test_prove_prints_a_proof_that_a_key_alone_checks(proven: CommandLine) -> None:
    proof = parse_tlog_proof(proven("ledger", "prove", "saw_1").out)
    leaf = proven("ledger", "prove", "saw_1", "--leaf").out
    assert json.loads(leaf)["path"] == ARTIFACT
    assert proof.verify(leaf, [parse_vkey(VKEY)], origin=ORIGIN).size == 4


def test_prove_an_advisory(proven: CommandLine) -> None:
    done = proven("ledger", "prove", "saw_1", "--advisory", "adv_3")
    leaf = proven("ledger", "prove", "saw_1", "--advisory", "adv_3", "--leaf").out
    assert json.loads(leaf)["advisory_id"] == "adv_3"
    parse_tlog_proof(done.out).verify(leaf, [parse_vkey(VKEY)])
    assert done.err == f"leaf 2 of rmos/{STORE_ID}/1/rmos.advisories.requests/0\n"


def test_prove_all_as_json(proven: CommandLine) -> None:
    document = proven("ledger", "prove", "saw_1", "--json").document
    assert [(each["kind"], each["advisory_id"], each["index"]) for each in document["proofs"]] == [
        ("run", None, 0),
        ("advisory", "adv_1", 0),
        ("advisory", "adv_3", 2),
    ]
    for each in document["proofs"]:
        proof = parse_tlog_proof(each["proof"].encode())
        checkpoint = proof.verify(each["leaf"].encode(), [parse_vkey(VKEY)])
        assert (checkpoint.origin, checkpoint.size) == (each["origin"], each["size"])


def test_prove_what_is_not_there(proven: CommandLine) -> None:
    assert proven("ledger", "prove", "nobody").status == 3
    done = proven("ledger", "prove", "saw_1", "--advisory", "adv_9")
    assert (done.status, done.sentence[:18]) == (3, "ADVISORY_NOT_FOUND")


# sums


def test_sums_of_a_date_are_checked_by_sha256sum(proven: CommandLine) -> None:
    done = proven("ledger", "sums", "2025-12-18")
    assert (done.status, done.err) == (0, "5 files\n")
    subprocess.run(["sha256sum", "-c", "--quiet"], cwd=proven.data_dir, input=done.out, check=True)


def test_sums_of_all_have_the_store_root(proven: CommandLine) -> None:
    root = store_root(logs(proven.data_dir)).hex()
    done = proven("ledger", "sums")
    assert done.err == f"11 files; store root {root}\n"
    assert proven("ledger", "sums", "--root").text == f"{root}\n"
    lines = [json.loads(line) for line in proven("ledger", "sums", "--json").text.splitlines()]
    assert lines[-1] == {"summary": {"lines": 11, "archived": 0, "store_root": root}}
    assert [f"{each['sha256']}  {each['path']}" for each in lines[:-1]] == done.text.splitlines()


def test_sums_of_a_date_have_no_store_root(proven: CommandLine) -> None:
    lines = proven("ledger", "sums", "2025-12-19", "--json").text.splitlines()
    assert json.loads(lines[-1]) == {"summary": {"lines": 3, "archived": 0, "store_root": None}}
    assert proven("ledger", "sums", "2025-12-19", "--root").status == 2
    assert proven("ledger", "sums", "yesterday").status == 2


def test_sums_end_with_5_where_a_file_is_not_what_its_leaf_says(proven: CommandLine) -> None:
    change(proven.data_dir / ARTIFACT, b'"operator":"ana"', b'"operator":"eva"')
    done = proven("ledger", "sums", "2025-12-18")
    assert done.status == 5
    assert done.err.startswith(f"Error: ARTIFACT_CORRUPT: Expected {ARTIFACT} to have SHA-256")
    assert f"  {ARTIFACT}\n" in done.text
    assert proven("ledger", "sums", "--root").sentence


# evidence


def checked(*arguments: str) -> int:
    return verify.main(arguments)


def test_evidence_is_proven_by_the_verifier(
    proven: CommandLine, trusted: str, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    done = proven("evidence", "saw_1")
    assert done.status == 0
    assert dict(line.split(maxsplit=1) for line in done.text.splitlines()) == {
        "file": "evidence-saw_1.zip",
        "size_bytes": f"{Path('evidence-saw_1.zip').stat().st_size:,}",
        "links": "2",
        "attachments": "2",
        "key": VKEY,
    }
    assert "from another source" in done.err
    assert checked("evidence-saw_1.zip", "--key", VKEY) == 0
    assert checked("evidence-saw_1.zip", "--trusted", trusted) == 0
    assert checked("evidence-saw_1.zip") == 3
    capsysbinary.readouterr()


def test_evidence_for_a_trusted_checkpoint(
    proven: CommandLine, trusted: str, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    go_on(proven.data_dir, requests=[(0, run_request(run_id="later"))], start=4)
    assert proven("evidence", "saw_1", "--trusted", trusted, "-o", "with.zip").status == 0
    assert proven("evidence", "saw_1", "-o", "without.zip").status == 0
    assert checked("with.zip", "--trusted", trusted) == 0
    assert checked("without.zip", "--trusted", trusted) == 3
    capsysbinary.readouterr()


def test_evidence_for_a_log_without_a_trusted_checkpoint_says_so(
    proven: CommandLine, trusted: str
) -> None:
    go_on(proven.data_dir, requests=[(7, run_request(run_id="new"))])
    done = proven("evidence", "new", "--trusted", trusted)
    assert done.status == 0
    assert f"run: no trusted checkpoint of rmos/{STORE_ID}/1/rmos.runs.requests/7 was given." in (
        done.err.replace("\n", " ")
    )


def test_evidence_names_what_is_missing(proven: CommandLine) -> None:
    done = proven("evidence", "rosette_1", "--json")
    (file,) = done.document["attachments"]
    assert (file["kind"], file["state"]) == ("geometry", "missing")
    assert done.document["files"] == ["runs/2026-02-01/rosette_1.json"]
    assert done.document["keys"] == [VKEY]
    told = proven("evidence", "rosette_1", "-o", "again.zip")
    assert f"missing      {file['sha256']}  geometry\n" in told.text


@pytest.mark.parametrize(("run_id", "status"), [("nobody", 3), ("saw_red", 5), ("saw_1", 5)])
def test_evidence_that_cannot_be_given_leaves_no_file(
    proven: CommandLine, run_id: str, status: int
) -> None:
    change(proven.data_dir / "runs/2025-12-19/saw_red.json", b"rip", b"cut")
    damage(next((proven.data_dir / "attachments").rglob(sha256(SHARED))))
    done = proven("evidence", run_id)
    assert done.status == status
    assert done.sentence
    assert list(Path().iterdir()) == []


def test_evidence_is_never_written_over_a_file(proven: CommandLine) -> None:
    assert proven("evidence", "saw_1").status == 0
    content = Path("evidence-saw_1.zip").read_bytes()
    done = proven("evidence", "saw_1")
    assert done.sentence == "evidence-saw_1.zip cannot be written: File exists; name a new file."
    assert done.status == 2
    assert Path("evidence-saw_1.zip").read_bytes() == content
    assert zipfile.is_zipfile("evidence-saw_1.zip")
