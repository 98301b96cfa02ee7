"""Key and epoch of a store of many hosts change, and each host finds out."""

import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("psycopg", reason="the extra scale is not installed")

from pipeline.bucket.objects import Objects
from pipeline.errors import StoreAwayError, StoreError, StoreNotReadyError
from pipeline.ledger import rotation
from pipeline.ledger.rotation import RotatedKey, rotate_key
from pipeline.settings import Settings
from pipeline.storage.contents import opened_contents
from pipeline.storage.ledger_key import open_store_logs, verifier_keys
from pipeline.storage.reader import RunReader
from pipeline.storage.run_store import RunStore
from pipeline.storage.store import begin_epoch, open_to_read
from tests.api.conftest import api_dependencies, api_of
from tests.bucket.test_many_hosts import settings, writing
from tests.builders import sha256
from tests.storage.stores import tombstone

__all__ = ["settings"]

CONTENT = b"G1 X1 Y2"


@pytest.fixture
def server(quick_server: str) -> str:
    return quick_server


@pytest.fixture
def elsewhere(settings: Settings, tmp_path: Path) -> Settings:
    """Give the settings of another host, which has a copy of the key."""
    there = settings.model_copy(update={"ledger_key_file": tmp_path / "elsewhere" / "key.pem"})
    copy_key(settings, there)
    return there


def copy_key(here: Settings, there: Settings) -> None:
    """Copy the file of the key, and those beside it."""
    source, target = here.ledger_key_file, there.ledger_key_file
    assert source is not None
    assert target is not None
    target.parent.mkdir(exist_ok=True)
    for path in source.parent.glob(f"{source.name}*"):
        shutil.copy(path, target.parent / path.name.replace(source.name, target.name))


def rotate(settings: Settings) -> RotatedKey:
    assert settings.ledger_key_file is not None
    with opened_contents(settings) as store:
        return rotate_key(store, settings.ledger_key_file)


def leaves(settings: Settings, store: RunStore) -> list[int]:
    (log,) = open_store_logs(settings, store.store).open_all()
    return [leaf.offset for leaf in log.leaves()]


def test_a_host_with_the_old_key_stops_until_it_has_a_copy_of_the_new_one(
    settings: Settings, elsewhere: Settings
) -> None:
    with writing(elsewhere) as other:
        other.commit([tombstone(0)])
        rotated = rotate(settings)
        assert rotated.logs == 1
        with pytest.raises(StoreError, match="was changed meanwhile"):
            other.commit([tombstone(1)])
    with pytest.raises(StoreNotReadyError, match="put a copy of the file of that key"):
        rotate(elsewhere)
    with pytest.raises(StoreNotReadyError, match="put a copy of the file of that key"):
        writing(elsewhere).__enter__()
    with writing(settings) as store:
        store.commit([tombstone(1)])
    copy_key(settings, elsewhere)
    with writing(elsewhere) as other:
        other.commit([tombstone(2)])
        assert leaves(elsewhere, other) == [0, 1, 2]
        assert verifier_keys(elsewhere, other.identity) == [rotated.new, rotated.old]


def test_a_change_of_key_that_was_killed_is_finished_by_the_next(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(_: Path) -> None:
        raise KeyboardInterrupt

    with writing(settings) as store:
        store.commit([tombstone(0)])
    with monkeypatch.context() as patch:
        patch.setattr(rotation, "_take_over", killed)
        with pytest.raises(KeyboardInterrupt):
            rotate(settings)
    with pytest.raises(StoreNotReadyError, match="put a copy of the file of that key"):
        writing(settings).__enter__()
    rotate(settings)
    with writing(settings) as store:
        store.commit([tombstone(1)])
        assert leaves(settings, store) == [0, 1]
        assert len(verifier_keys(settings, store.identity)) == 2


def test_a_host_without_the_key_is_asked_for_a_copy(settings: Settings, tmp_path: Path) -> None:
    bare = settings.model_copy(update={"ledger_key_file": tmp_path / "none.pem"})
    with pytest.raises(StoreNotReadyError, match="made on another host: put a copy of its file"):
        writing(bare).__enter__()
    with (
        closing(open_to_read(bare)) as store,
        pytest.raises(StoreNotReadyError, match="nor its public"),
    ):
        open_store_logs(bare, store)


def test_a_host_in_the_old_epoch_stops_and_begins_in_the_new_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(*_: Any) -> None:
        message = "no answer"
        raise StoreAwayError(message)

    with writing(settings) as other:
        other.commit([tombstone(0)])
        with monkeypatch.context() as patch:
            patch.setattr(Objects, "swap", lost)
            with pytest.raises(StoreAwayError):
                begin_epoch(settings, cluster_id="cluster-2")
        with pytest.raises(StoreNotReadyError, match="run rmos store new-epoch again"):
            open_to_read(settings)
        with pytest.raises(StoreError, match="was changed meanwhile"):
            other.commit([tombstone(1)])
    before = replace(other.identity, epoch=2, cluster_id="cluster-2")
    assert begin_epoch(settings, cluster_id="cluster-2") == before
    with writing(settings) as store:
        assert store.identity == before


def test_no_store_is_no_volume_that_is_not_mounted(settings: Settings) -> None:
    none = settings.model_copy(update={"store_url": f"{settings.store_url}-none"})
    with pytest.raises(StoreNotReadyError, match="look at RMOS_STORE_URL, or make a new store"):
        open_to_read(none)


async def test_a_blob_is_put_into_a_bucket_once(settings: Settings, tmp_path: Path) -> None:
    reader = RunReader(open_to_read(settings))
    name = sha256(CONTENT)
    async with api_of(api_dependencies(settings, reader), tmp_path) as api:
        first, second = await api.put(name, CONTENT), await api.put(name, CONTENT)
        assert (first.status_code, second.status_code) == (201, 200)
        other = await api.put("0" * 64, CONTENT)
        assert (other.status_code, other.json()["error"]) == (422, "HASH_MISMATCH")
    with opened_contents(settings) as store:
        found = list(store.files.paths_below("attachments"))
        assert [store.files.read(path, 100) for path in found] == [CONTENT]
