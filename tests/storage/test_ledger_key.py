"""Which key a store's ledger has: made once, found again, and enough of it for those who check."""

from contextlib import closing
from pathlib import Path

import pytest

from pipeline.disk import durable_files
from pipeline.disk.contents import disk_contents
from pipeline.disk.store_identity import create_store, read_store
from pipeline.disk.system_calls import SystemCalls, supports_unnamed_files
from pipeline.errors import StoreNotReadyError
from pipeline.ledger.log_id import LogId, signer_name
from pipeline.ledger.rotation import rotate_key
from pipeline.ledger.tlog.notes import parse_vkey
from pipeline.settings import Settings
from pipeline.storage.ledger_key import init_ledger_key, key_file_of, open_ledger, verifier_keys
from pipeline.storage.store import open_to_write
from tests.ledger.ledgers import STORE_ID, leaves

LOG = LogId(1, "rmos.runs.requests", 0)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    root = tmp_path / "store"
    create_store(root, cluster_id="cluster", prefix="rmos", store_id=STORE_ID)
    return Settings(data_dir=root, ledger_key_file=tmp_path / "keys" / "ledger.pem")


def write_leaves(settings: Settings, start: int, end: int) -> None:
    ledger = open_ledger(settings)
    assert ledger is not None
    ledger.append_all({LOG: leaves(start, end)})


def test_a_key_is_made_once_with_its_public_part_beside_it(settings: Settings) -> None:
    made = init_ledger_key(settings)
    assert made.is_new
    assert made.path == settings.ledger_key_file
    assert parse_vkey(made.vkey_path.read_text().strip()) == made.key
    assert made.key.name == signer_name(STORE_ID)
    content = made.path.read_bytes()
    again = init_ledger_key(settings)
    assert not again.is_new
    assert again.key == made.key
    assert made.path.read_bytes() == content


def test_a_public_part_that_is_missing_is_written_again(settings: Settings) -> None:
    made = init_ledger_key(settings)
    made.vkey_path.unlink()
    init_ledger_key(settings)
    assert parse_vkey(made.vkey_path.read_text().strip()) == made.key


def test_by_default_the_key_lies_outside_the_store(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = read_store(settings.data_dir)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "configuration"))
    default = settings.model_copy(update={"ledger_key_file": None})
    expected = tmp_path / "configuration/rmos" / f"{STORE_ID}.pem"
    assert key_file_of(default, identity) == expected
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert key_file_of(default, identity) == tmp_path / ".config/rmos" / f"{STORE_ID}.pem"


def test_a_store_whose_logs_another_key_signs_gets_no_second_one(settings: Settings) -> None:
    made = init_ledger_key(settings)
    write_leaves(settings, 0, 2)
    made.path.unlink()
    with pytest.raises(StoreNotReadyError, match=f"put that key back at {made.path}"):
        init_ledger_key(settings)
    assert not made.path.exists()
    with pytest.raises(StoreNotReadyError, match="run rmos ledger init"):
        open_ledger(settings)


def test_a_new_key_is_not_made_beside_the_public_part_of_another(settings: Settings) -> None:
    made = init_ledger_key(settings)
    made.path.unlink()
    with pytest.raises(StoreNotReadyError, match=f"public part of another key is at {made.path}"):
        init_ledger_key(settings)
    assert not made.path.exists()
    made.vkey_path.rename(made.path.with_name("kept.vkey"))
    again = init_ledger_key(settings)
    assert again.key != made.key
    assert verifier_keys(settings, read_store(settings.data_dir)) == [again.key]


def test_whoever_checks_needs_the_public_part_alone(settings: Settings) -> None:
    made = init_ledger_key(settings)
    identity = read_store(settings.data_dir)
    assert verifier_keys(settings, identity) == [made.key]
    made.path.unlink()
    assert verifier_keys(settings, identity) == [made.key]
    made.vkey_path.unlink()
    with pytest.raises(StoreNotReadyError, match="There is no ledger key"):
        verifier_keys(settings, identity)


def test_the_public_part_is_taken_from_the_private_one_where_that_alone_is_there(
    settings: Settings,
) -> None:
    made = init_ledger_key(settings)
    made.vkey_path.unlink()
    assert verifier_keys(settings, read_store(settings.data_dir)) == [made.key]


def test_keys_that_signed_before_are_trusted_too(settings: Settings) -> None:
    first = init_ledger_key(settings)
    write_leaves(settings, 0, 2)
    rotated = rotate_key(disk_contents(settings.data_dir), first.path)
    write_leaves(settings, 2, 3)
    assert verifier_keys(settings, read_store(settings.data_dir)) == [rotated.new, first.key]


def test_no_ledger_has_no_keys_and_must_not_follow_a_ledger(settings: Settings) -> None:
    without = settings.model_copy(update={"ledger_enabled": False})
    assert open_ledger(without) is None
    assert verifier_keys(without, read_store(settings.data_dir)) == []
    init_ledger_key(settings)
    write_leaves(settings, 0, 1)
    with pytest.raises(StoreNotReadyError, match="has a ledger, which must not end"):
        open_ledger(without)


def test_a_worker_tries_its_disk_once_for_files_and_ledger(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    init_ledger_key(settings)
    tried = []

    def supports(root: Path, calls: SystemCalls) -> bool:
        tried.append(root)
        return supports_unnamed_files(root, calls)

    monkeypatch.setattr(durable_files, "supports_unnamed_files", supports)
    store, ledger = open_to_write(settings)
    with closing(store):
        assert ledger is not None
        ledger.append_all({LOG: leaves(0, 5)})
    assert tried == [settings.data_dir]
