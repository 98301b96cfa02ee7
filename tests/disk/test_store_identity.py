"""The identity of a store: made once, read strictly, renewed for a new broker."""

import json
import os
import re
import signal
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.store.identity import STORE_FORMAT, StoreIdentity
from pipeline.disk import store_identity as identity_module
from pipeline.disk.store_identity import begin_epoch, check_identity, create_store, read_store
from pipeline.errors import InputError, StoreError, StoreNotReadyError
from tests.laws import offenders
from tests.storage.stores import in_child

STORE_ID = "0123456789abcdef" * 2


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "some" / "new" / "folder"


def make(root: Path, **changes: Any) -> StoreIdentity:
    return create_store(root, **({"cluster_id": "cluster-1", "prefix": "rmos"} | changes))


def test_a_new_store_is_read_back_as_it_was_made(root: Path) -> None:
    made = make(root)
    assert read_store(root) == made
    assert (made.format, made.cluster_id, made.prefix, made.epoch) == (
        STORE_FORMAT,
        "cluster-1",
        "rmos",
        1,
    )
    assert re.fullmatch("[0-9a-f]{32}", made.store_id)


def test_each_new_store_has_another_id(tmp_path: Path) -> None:
    assert make(tmp_path / "a").store_id != make(tmp_path / "b").store_id


def test_a_rebuilt_store_gets_its_old_id_and_epoch(root: Path) -> None:
    made = make(root, store_id=STORE_ID, epoch=3)
    assert (made.store_id, made.epoch) == (STORE_ID, 3)
    assert read_store(root) == made


def test_the_identity_is_canonical_json_that_nobody_writes_to(root: Path) -> None:
    make(root, store_id=STORE_ID)
    path = root / "store.json"
    assert path.read_bytes() == (
        b'{"cluster_id":"cluster-1","epoch":1,"format":"rmos.store/1","prefix":"rmos",'
        b'"store_id":"' + STORE_ID.encode() + b'"}'
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o444


@pytest.mark.parametrize(
    "store_id", ["", "0" * 31, "0" * 33, "A" * 32, "g" * 32, "0" * 32 + "\n", "é" * 32]
)
def test_a_store_id_of_another_form_is_refused_and_nothing_is_made(
    root: Path, store_id: str
) -> None:
    with pytest.raises(InputError, match="32 lower-case hex digits"):
        make(root, store_id=store_id)
    assert not root.exists()


@pytest.mark.parametrize("epoch", [0, -1])
def test_an_epoch_below_one_is_refused(root: Path, epoch: int) -> None:
    with pytest.raises(InputError, match="epoch from 1"):
        make(root, epoch=epoch)
    assert not root.exists()


def test_a_second_store_is_not_made_over_the_first(root: Path) -> None:
    made = make(root)
    with pytest.raises(StoreNotReadyError, match="already"):
        make(root)
    assert read_store(root) == made


def test_of_many_that_make_a_store_at_once_one_is_told_so(root: Path) -> None:
    barrier = threading.Barrier(8)
    made: list[StoreIdentity] = []
    refused: list[str] = []

    def work() -> None:
        barrier.wait()
        try:
            made.append(make(root))
        except StoreNotReadyError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [read_store(root)]
    assert len(refused) == 7
    assert all("already" in text for text in refused)


def test_the_second_of_two_is_refused_though_it_looked_first(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faster: list[StoreIdentity] = []
    looked = identity_module._refuse_foreign_content

    def look_and_be_overtaken(folder: Path) -> None:
        looked(folder)
        monkeypatch.undo()
        faster.append(make(root))

    monkeypatch.setattr(identity_module, "_refuse_foreign_content", look_and_be_overtaken)
    with pytest.raises(StoreNotReadyError, match="already"):
        make(root)
    assert faster == [read_store(root)]


@pytest.mark.parametrize("name", ["kafka", "lost+found"])
def test_a_store_may_be_made_beside_the_brokers_data_and_on_a_new_volume(
    root: Path, name: str
) -> None:
    (root / name).mkdir(parents=True)
    assert make(root) == read_store(root)


def test_a_folder_with_something_else_in_it_is_refused(root: Path) -> None:
    (root / "photos").mkdir(parents=True)
    with pytest.raises(StoreNotReadyError, match="found photos in it"):
        make(root)
    assert [path.name for path in root.iterdir()] == ["photos"]


def test_what_a_killed_making_left_does_not_stop_the_next(root: Path) -> None:
    root.mkdir(parents=True)
    (root / f".{'0' * 32}.tmp").write_bytes(b"half")
    assert make(root) == read_store(root)
    assert [path.name for path in root.iterdir()] == ["store.json"]


def test_a_file_in_place_of_the_folder_is_an_error_of_the_disk(root: Path) -> None:
    root.parent.mkdir(parents=True)
    root.write_bytes(b"")
    with pytest.raises(StoreError, match="nothing was acknowledged"):
        make(root)


@pytest.mark.parametrize("is_there", [True, False])
def test_a_folder_without_a_store_is_refused_with_two_ways_out(root: Path, is_there: bool) -> None:
    if is_there:
        root.mkdir(parents=True)
    with pytest.raises(StoreNotReadyError, match=r"mount its volume.*rmos store init"):
        read_store(root)
    assert list(root.parent.glob("folder/*")) == []


RIGHT: dict[str, Any] = {
    "format": STORE_FORMAT,
    "store_id": STORE_ID,
    "cluster_id": "c",
    "prefix": "rmos",
    "epoch": 1,
}


def test_an_identity_that_is_not_one_is_refused(tmp_path: Path) -> None:
    def holds(found: bytes) -> None:
        (tmp_path / "store.json").write_bytes(found)
        with pytest.raises(StoreNotReadyError, match=r"store\.json to hold the store's identity"):
            read_store(tmp_path)

    assert (
        offenders(
            holds,
            [
                b"",
                b"{",
                b"\xff\xfe",
                b"[]",
                b"null",
                b"[1,2,3,4,5]",
                json.dumps({}).encode(),
                json.dumps(RIGHT | {"more": 1}).encode(),
                json.dumps({name: RIGHT[name] for name in RIGHT if name != "prefix"}).encode(),
                *(
                    json.dumps(RIGHT | {"epoch": wrong}).encode()
                    for wrong in ("1", 1.0, True, 0, -1, None)
                ),
                json.dumps(RIGHT | {"store_id": "short"}).encode(),
                json.dumps(RIGHT | {"store_id": 7}).encode(),
                json.dumps(RIGHT | {"cluster_id": None}).encode(),
                json.dumps(RIGHT | {"prefix": ["rmos"]}).encode(),
            ],
        )
        == []
    )


def test_a_store_of_another_format_is_left_to_the_version_that_made_it(tmp_path: Path) -> None:
    (tmp_path / "store.json").write_bytes(b'{"format": "rmos.store/2", "shards": 4}')
    with pytest.raises(StoreNotReadyError, match=r"found rmos\.store/2: use the version"):
        read_store(tmp_path)


def test_a_folder_in_place_of_the_identity_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store.json").mkdir()
    with pytest.raises(StoreError, match="found a folder"):
        read_store(tmp_path)


def test_another_cluster_is_refused_with_two_ways_out(root: Path) -> None:
    made = make(root)
    with pytest.raises(StoreNotReadyError, match=r"RMOS_BOOTSTRAP_SERVERS.*new-epoch"):
        check_identity(made, root, cluster_id="cluster-2", prefix="rmos")


def test_another_prefix_is_refused(root: Path) -> None:
    made = make(root)
    with pytest.raises(StoreNotReadyError, match=r"rmos\.\*, RMOS_PREFIX says other"):
        check_identity(made, root, cluster_id="cluster-1", prefix="other")


def test_its_own_cluster_and_prefix_are_fine(root: Path) -> None:
    check_identity(make(root), root, cluster_id="cluster-1", prefix="rmos")


def test_a_new_epoch_keeps_the_store_id_and_takes_the_new_cluster(root: Path) -> None:
    made = make(root)
    renewed = begin_epoch(root, cluster_id="cluster-2")
    assert renewed == read_store(root)
    assert (renewed.epoch, renewed.cluster_id) == (2, "cluster-2")
    assert (renewed.store_id, renewed.prefix) == (made.store_id, made.prefix)


def test_a_renewed_identity_may_be_read_by_all_whatever_the_umask(root: Path) -> None:
    make(root)
    before = os.umask(0o077)
    try:
        begin_epoch(root, cluster_id="cluster-2")
    finally:
        os.umask(before)
    assert stat.S_IMODE((root / "store.json").stat().st_mode) == 0o444


def test_there_is_no_new_epoch_without_a_store(root: Path) -> None:
    with pytest.raises(StoreNotReadyError):
        begin_epoch(root, cluster_id="cluster-2")
    assert not root.exists()


def test_many_new_epochs_at_once_are_each_another(root: Path) -> None:
    make(root)
    barrier = threading.Barrier(8)
    epochs: list[int] = []

    def work() -> None:
        barrier.wait()
        epochs.append(begin_epoch(root, cluster_id="cluster-2").epoch)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(epochs) == list(range(2, 10))


@pytest.mark.parametrize("step", ["fchmod", "fsync", "replace"])
def test_a_death_while_renewing_leaves_the_old_identity_and_no_obstacle(
    root: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    made = make(root)

    def die(*arguments: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def renew_and_die() -> bytes:
        monkeypatch.setattr(Path if step == "replace" else os, step, die)
        begin_epoch(root, cluster_id="cluster-2")
        return b"alive"

    # In a container the next process may well have the same number.
    for _ in range(2):
        status, _ = in_child(renew_and_die)
        assert os.WTERMSIG(status) == signal.SIGKILL
        assert read_store(root) == made
    assert begin_epoch(root, cluster_id="cluster-2").epoch == 2
