"""Go's own sumdb/tlog and sumdb/note verify a log that we wrote."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.ledger.tlog.notes import encode_base64
from pipeline.ledger.tlog.tiles import ENTRIES, Tile, tiles_of_append
from tests.ledger.ledgers import LOG, SIGNER, STORE_ID, damage, leaves, ledger, reader, tile_path
from tests.ledger.tlog.signers import signer

SOURCE = Path(__file__).parent / "go_verify"
SIZE = 70_000
HELD = 34_000


@pytest.fixture(scope="session")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the Go program once."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("Go is not installed, so its verifier of the log cannot be built")
    program = tmp_path_factory.mktemp("go") / "verify"
    built = subprocess.run(
        [go, "build", "-o", program, "."],
        cwd=SOURCE,
        env={**os.environ, "GOFLAGS": "-mod=readonly -buildvcs=false"},
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode and "dial tcp" in built.stderr:
        pytest.skip(f"the modules of Go's verifier cannot be fetched: {built.stderr.strip()}")
    assert built.returncode == 0, built.stderr
    return program


@pytest.fixture(scope="session")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a log in batches of several sizes, and keep its checkpoint of 34,000 leaves."""
    root = tmp_path_factory.mktemp("log")
    writer = ledger(root)
    all_leaves = leaves(0, SIZE)
    for start, end in ((0, 1), (1, 300), (300, HELD), (HELD, SIZE - 1), (SIZE - 1, SIZE)):
        writer.append_all({LOG: all_leaves[start:end]})
        if end == HELD:
            shutil.copy(root / LOG.path / "checkpoint", root / "held")
    return root


def verify(
    program: Path, root: Path, *, held: bool = True, vkey: str = str(SIGNER.key)
) -> subprocess.CompletedProcess[str]:
    arguments = [program, root / LOG.path, LOG.origin(STORE_ID), vkey]
    return subprocess.run(
        [*arguments, root / "held"] if held else arguments,
        capture_output=True,
        text=True,
        check=False,
    )


def test_go_verifies_every_entry_and_the_growth_since_a_trusted_checkpoint(
    verifier: Path, log: Path
) -> None:
    found = verify(verifier, log)
    assert found.returncode == 0, found.stderr
    assert found.stdout == f"{SIZE} {encode_base64(reader(log).checkpoint.root)}\n"


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 512, 600])
def test_go_verifies_a_log_of_any_shape(verifier: Path, tmp_path: Path, size: int) -> None:
    ledger(tmp_path).append_all({LOG: leaves(0, size)})
    found = verify(verifier, tmp_path, held=False)
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith(f"{size} ")


@pytest.mark.parametrize("tile", list(tiles_of_append(0, 600)), ids=str)
def test_go_refuses_what_we_refuse(verifier: Path, tmp_path: Path, tile: Tile) -> None:
    """So a log that Go takes is one that was really looked at."""
    ledger(tmp_path).append_all({LOG: leaves(0, 600)})
    damage(tile_path(tmp_path, tile), 0 if tile.level != ENTRIES else 5)
    assert verify(verifier, tmp_path, held=False).returncode == 1


def test_go_refuses_another_key(verifier: Path, log: Path) -> None:
    other = signer(SIGNER.name, seed=2).key
    found = verify(verifier, log, vkey=str(other))
    assert (found.returncode, found.stdout) == (1, "")


def test_go_verifies_a_checkpoint_signed_by_two_keys_with_either(
    verifier: Path, tmp_path: Path
) -> None:
    new = signer(SIGNER.name, seed=2)
    ledger(tmp_path, signers=[SIGNER, new]).append_all({LOG: leaves(0, 9)})
    for key in (SIGNER.key, new.key):
        assert verify(verifier, tmp_path, held=False, vkey=str(key)).returncode == 0
