"""Who may write the bucket changes a store: an audit names each thing, with versions and without.

An attacker overwrites, deletes, puts an older checkpoint back, and adds objects of his own.
"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest.importorskip("obstore", reason="the extra scale is not installed")

from pipeline.audit.audited_store import audited_store
from pipeline.audit.rules.finding import VERSIONS_NOT_SEEN
from pipeline.settings import Settings
from pipeline.storage.advisory_store import AdvisoryStore
from pipeline.storage.run_store import RunStore
from pipeline.storage.store import create, init_key, open_to_read
from tests.audit.audited import (
    LINK,
    LOG,
    RED,
    RUN,
    WITH_DRAWING,
    WITH_LARGE_GCODE,
    Audited,
    audit_store,
    audited_records,
    blob,
)
from tests.bucket.buckets import commit, shared_settings
from tests.bucket.servers import point_at, s3_client, versitygw_server
from tests.conftest import Servers
from tests.ledger.ledgers import STORE_ID

CHECKPOINT = f"{LOG}/checkpoint"
TILE = "ledger/1/rmos.runs.requests-7/tile/entries/000.p/3"
UPLOADED = b"what no run names"
LIMIT_BYTES = 1 << 30


class Made(NamedTuple):
    """A store: its settings, its objects, and an older checkpoint of the first log."""

    settings: Settings
    objects: dict[str, bytes]
    older: bytes


@pytest.fixture(scope="module")
def made(moto: str, servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("attacked")
    settings = shared_settings(folder, servers)
    runs, others, advisories = audited_records()
    with pytest.MonkeyPatch.context() as patch:
        point_at(patch, moto)
        create(settings, cluster_id="cluster-1", store_id=STORE_ID)
        init_key(settings)
        commit(settings, RunStore, runs[:6])
        with closing(open_to_read(settings)) as store:
            older = store.files.read(CHECKPOINT, LIMIT_BYTES)
        commit(settings, RunStore, [*runs[6:], *others])
        commit(settings, AdvisoryStore, advisories)
        with closing(open_to_read(settings)) as store:
            files = store.files
            objects = {path: files.read(path, LIMIT_BYTES) for path in files.paths_below("")}
    return Made(settings, objects | {blob(UPLOADED): UPLOADED}, older)


class Attacked:
    """A copy of the store in a bucket, as who may write there sees it."""

    def __init__(self, client: Any, bucket: str, made: Made) -> None:
        self._client = client
        self._bucket = bucket
        url = f"s3://{bucket}/copy"
        self.settings = made.settings.model_copy(update={"store_url": url})
        self.objects = made.objects
        self.put(CHECKPOINT, made.older)
        for path, content in made.objects.items():
            self.put(path, content)

    def put(self, path: str, content: bytes) -> None:
        self._client.put_object(Bucket=self._bucket, Key=f"copy/{path}", Body=content)

    def delete(self, path: str) -> None:
        self._client.delete_object(Bucket=self._bucket, Key=f"copy/{path}")

    def audit(self, mode: str = "full", **scope: Any) -> Audited:
        store = audited_store(self.settings)
        try:
            return audit_store(store, mode, scope or {"all": True})
        finally:
            store.let_go()


@pytest.fixture(scope="module")
def versitygw_with_versions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("s3")
    with versitygw_server(folder / "root", versions=folder / "versions") as address:
        yield address


@pytest.fixture(
    params=["moto", pytest.param("versitygw_with_versions", marks=pytest.mark.slow)],
    ids=["moto", "versitygw"],
)
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    address: str = request.getfixturevalue(request.param)
    point_at(monkeypatch, address)
    return address


def copied(server: str, made: Made, bucket: str, *, versions: bool) -> Attacked:
    client = s3_client(server)
    client.create_bucket(Bucket=bucket)
    if versions:
        kept = {"Status": "Enabled"}
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration=kept)
    return Attacked(client, bucket, made)


@pytest.fixture(
    params=[True, pytest.param(False, marks=pytest.mark.slow)], ids=["with versions", "without"]
)
def attacked(
    request: pytest.FixtureRequest, server: str, made: Made, tmp_path: Path
) -> tuple[Attacked, bool]:
    bucket = tmp_path.name.replace("_", "-").lower()[-40:].strip("-")
    return copied(server, made, bucket, versions=request.param), request.param


def flipped(content: bytes) -> bytes:
    return content[:-2] + bytes([content[-2] ^ 1]) + content[-1:]


def test_each_attack_on_a_bucket_is_found_by_name(
    attacked: tuple[Attacked, bool], made: Made
) -> None:
    store, versions = attacked
    for mode in ("quick", "full"):
        clean = store.audit(mode)
        assert clean.findings == []
        reason = clean.report["verdicts"]["integrity"]["reason"]
        assert reason.endswith(VERSIONS_NOT_SEEN) is not versions

    foreign = ("notes.txt", "runs/2025-12-18/run_x.json", "runs/2025-12-18/deep/er", "ledger/1/x")
    for path in foreign:
        store.put(path, b"{}")
    store.put(RUN, flipped(store.objects[RUN]))
    store.put(WITH_DRAWING, b"")
    store.put(WITH_DRAWING, store.objects[WITH_DRAWING])
    store.delete(LINK)
    store.delete(blob(UPLOADED))
    store.delete(TILE)
    found = by_path(store.audit())
    assert {path: found.pop(path) for path in foreign} == {
        "notes.txt": ["STRANGE_FILE"],
        "runs/2025-12-18/run_x.json": ["FILE_UNEXPLAINED"],
        "runs/2025-12-18/deep/er": ["FILE_UNEXPLAINED"],
        "ledger/1/x": ["STRANGE_FILE"],
    }
    # Its tile stands for a bundle that is gone, but nothing for the leaves in it.
    expected = {RUN: ["BYTES_DIFFER"], LINK: ["FILE_MISSING"], TILE: ["TILE_DIFFERS"]}
    if versions:
        strange = {path: ["STRANGE_FILE"] for path in (WITH_DRAWING, blob(UPLOADED))}
        expected = {path: [*codes, "STRANGE_FILE"] for path, codes in expected.items()}
        expected[TILE] = ["TILE_DIFFERS"]
        expected |= strange
    assert found == expected
    quick = by_path(store.audit("quick"))
    # Of the same size: no byte is read, but it has a second version.
    assert quick.get(RUN) == (["BYTES_DIFFER"] if versions else None)
    assert quick[LINK][0] == "FILE_MISSING"


def by_path(found: Audited) -> dict[str, list[str]]:
    codes: dict[str, list[str]] = {}
    for each in found.findings:
        codes.setdefault(each.path, []).append(each.code)
    return {path: sorted(each) for path, each in codes.items()}


def test_an_older_checkpoint_that_is_put_back_is_found(
    attacked: tuple[Attacked, bool], made: Made
) -> None:
    store, versions = attacked
    store.put(CHECKPOINT, made.older)
    found = store.audit("quick")
    codes = by_path(found)
    if versions:
        assert codes[CHECKPOINT] == ["CHECKPOINT_DIFFERS"]
        (each,) = (each for each in found.findings if each.path == CHECKPOINT)
        assert each.expected.startswith("that of 11 leaves, the version ")
        assert each.found == "an older one in its place, of 6 leaves"
    # And by what no leaf explains any more.
    assert {codes[path][0] for path in (WITH_LARGE_GCODE, RED)} == {"FILE_UNEXPLAINED"}
    assert found.results["integrity"] == "failed"
