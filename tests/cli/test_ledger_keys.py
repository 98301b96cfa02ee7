"""`rmos ledger init` and `rotate`, as a shell sees them."""

import shutil
from pathlib import Path

import pytest

from pipeline.disk.store_identity import create_store
from pipeline.errors import StoreNotReadyError
from pipeline.ledger.tlog.notes import parse_vkey
from pipeline.settings import read_settings
from pipeline.storage.ledger_key import open_ledger
from pipeline.storage.run_store import RunStore
from pipeline.storage.store import open_store_to_write
from tests.builders import run_request
from tests.cli.command_line import CommandLine
from tests.storage.stores import files as store_files
from tests.storage.stores import judged_record


@pytest.fixture
def key_file(rmos: CommandLine, tmp_path: Path) -> Path:
    """Give where the key of a new store is going to be."""
    create_store(rmos.data_dir, cluster_id="cluster", prefix="rmos")
    path = tmp_path / "keys" / "ledger.pem"
    rmos.set("RMOS_LEDGER_KEY_FILE", str(path))
    return path


def test_init_makes_a_key_and_shows_it_again(rmos: CommandLine, key_file: Path) -> None:
    first = rmos("ledger", "init")
    assert first.status == 0
    shown = dict(line.split() for line in first.text.splitlines())
    assert shown["key_file"] == str(key_file)
    assert (
        Path(shown["vkey_file"]).read_text().strip()
        == shown["vkey"]
        == str(parse_vkey(shown["vkey"]))
    )
    assert "Keep a copy of it" in first.err
    content = key_file.read_bytes()
    second = rmos("ledger", "init")
    assert (second.status, second.text) == (0, first.text)
    assert "it was not touched" in second.err
    assert key_file.read_bytes() == content
    assert rmos("ledger", "init", "--json").document == shown | {"new": False, "leaves_built": 0}


def test_rotate_shows_both_keys_and_the_note(rmos: CommandLine, key_file: Path) -> None:
    old = rmos("ledger", "init", "--json").document["vkey"]
    done = rmos("ledger", "rotate", "--json").document
    assert done["old_vkey"] == old
    assert done["vkey"] == rmos("ledger", "init", "--json").document["vkey"] != old
    assert Path(done["note_file"]) == key_file.with_name("ledger.pem.rotation-1")
    assert done["logs"] == 0
    assert "Keep a copy of it" in rmos("ledger", "rotate").err


def test_whoever_checks_needs_no_private_key_and_trusts_the_key_before(
    rmos: CommandLine, key_file: Path
) -> None:
    rmos("ledger", "init")
    store = RunStore(open_store_to_write(rmos.data_dir), ledger=open_ledger(read_settings()))
    store.commit([judged_record(run_request(run_id="run_a"), 0)])
    store.close()
    trusted = key_file.with_name("trusted.txt")
    trusted.write_bytes(rmos("ledger", "checkpoint").out)
    rmos("ledger", "rotate")
    key_file.unlink()
    done = rmos("ledger", "verify", "--trusted", str(trusted))
    assert (done.status, done.err.splitlines()[0]) == (
        0,
        "1 of 1 logs begin with their trusted checkpoint.",
    )
    assert rmos("ledger", "prove", "run_a").status == 0


@pytest.mark.parametrize("command", ["init", "rotate"])
def test_without_a_store_nothing_is_made(rmos: CommandLine, tmp_path: Path, command: str) -> None:
    rmos.set("RMOS_LEDGER_KEY_FILE", str(tmp_path / "ledger.pem"))
    done = rmos("ledger", command)
    assert done.status == 6
    assert done.sentence.startswith(f"There is no store at {rmos.data_dir}")
    assert list(tmp_path.iterdir()) == []


def test_rotate_without_a_key_names_the_way_out(rmos: CommandLine, key_file: Path) -> None:
    done = rmos("ledger", "rotate")
    assert done.status == 6
    assert done.sentence == f"There is no ledger key at {key_file}: run rmos ledger init."
    assert not key_file.parent.exists()


def other_store(rmos: CommandLine, folder: Path) -> Path:
    """Make another store with a log, and let the commands that follow be about it."""
    create_store(folder, cluster_id="cluster", prefix="rmos")
    rmos.set("RMOS_DATA_DIR", str(folder))
    rmos.set("RMOS_LEDGER_KEY_FILE", str(folder.with_name("other.pem")))
    assert rmos("ledger", "init").status == 0
    store = RunStore(open_store_to_write(folder), ledger=open_ledger(read_settings()))
    store.commit([judged_record(run_request(run_id="run_a"), 0)])
    store.close()
    return folder


@pytest.mark.parametrize("with_public_part", [True, False])
def test_nothing_is_signed_with_the_key_of_another_store(
    rmos: CommandLine, key_file: Path, tmp_path: Path, *, with_public_part: bool
) -> None:
    rmos("ledger", "init")
    other = other_store(rmos, tmp_path / "other")
    rmos.set("RMOS_LEDGER_KEY_FILE", str(key_file))
    if not with_public_part:
        key_file.with_name(f"{key_file.name}.vkey").unlink()
    before = store_files(other)
    with pytest.raises(StoreNotReadyError, match="the key of this store"):
        open_ledger(read_settings())
    for command in ("init", "rotate"):
        done = rmos("ledger", command)
        assert done.status == 6
        assert "RMOS_LEDGER_KEY_FILE to " in done.sentence
    assert store_files(other) == before
    assert not list(key_file.parent.glob("*.next"))
    assert not list(key_file.parent.glob("*.rotation-*"))


def test_a_store_without_logs_refuses_a_key_whose_public_part_names_another(
    rmos: CommandLine, key_file: Path, tmp_path: Path
) -> None:
    rmos("ledger", "init")
    create_store(tmp_path / "new", cluster_id="cluster", prefix="rmos")
    rmos.set("RMOS_DATA_DIR", str(tmp_path / "new"))
    with pytest.raises(StoreNotReadyError, match="Expected the public key of rmos/"):
        open_ledger(read_settings())
    assert rmos("ledger", "rotate").status == 6
    assert key_file.exists()


def test_a_key_that_is_not_that_of_its_public_part_signs_nothing(
    rmos: CommandLine, key_file: Path, tmp_path: Path
) -> None:
    rmos("ledger", "init")
    shutil.copy(other_store(rmos, tmp_path / "other").with_name("other.pem"), key_file)
    rmos.set("RMOS_DATA_DIR", str(rmos.data_dir))
    rmos.set("RMOS_LEDGER_KEY_FILE", str(key_file))
    with pytest.raises(StoreNotReadyError, match="is not the one whose public part is at"):
        open_ledger(read_settings())
