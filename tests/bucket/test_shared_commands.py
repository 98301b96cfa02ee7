"""Commands over a store of many hosts print what they print over one disk with the same records."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from pydantic import SecretStr

pytest.importorskip("obstore", reason="the extra scale is not installed")

from pipeline.settings import Settings
from pipeline.storage.advisory_store import AdvisoryStore
from pipeline.storage.attachments import AttachmentFiles
from pipeline.storage.run_store import RunStore
from pipeline.storage.store import create, init_key, open_to_write
from tests.bucket.servers import BUCKET, point_at
from tests.cli.command_line import CommandLine, Done, command_line
from tests.conftest import Servers
from tests.e2e.equivalence.outcomes import key_file_in
from tests.evidence.proven_stores import ADVISORIES, LINKED, REQUESTS, RUNS, UPLOADED, judged
from tests.ledger.ledgers import STORE_ID

pytestmark = pytest.mark.slow
KINDS = ("disk", "shared")


def fill(settings: Settings, uploaded: Path) -> None:
    """Make a store with its key, runs, advisories and a blob that came beside the topic."""
    create(settings, cluster_id="cluster-1", store_id=STORE_ID)
    init_key(settings)
    for topic, kind, given in ((RUNS, RunStore, REQUESTS), (ADVISORIES, AdvisoryStore, LINKED)):
        store, ledger = open_to_write(settings)
        with closing(kind(store, ledger=ledger)) as batches:
            batches.commit(judged(topic, given, 0))
            AttachmentFiles(store.files).put(uploaded)


@pytest.fixture(scope="module")
def stores(
    moto: str, servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Settings]:
    """Give the settings of a store on a disk and of one of many hosts, with the same records."""
    folder = tmp_path_factory.mktemp("stores")
    disk = Settings(data_dir=folder / "store", ledger_key_file=key_file_in(folder))
    shared = Settings(
        store_url=f"s3://{BUCKET}/{folder.name}",
        index_url=SecretStr(servers.get("18").new_database()),
        ledger_key_file=disk.ledger_key_file,
    )
    (folder / "uploaded").write_bytes(UPLOADED)
    with pytest.MonkeyPatch.context() as patch:
        point_at(patch, moto)
        for settings in (disk, shared):
            fill(settings, folder / "uploaded")
    return {"disk": disk, "shared": shared}


@pytest.fixture
def line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> Iterator[CommandLine]:
    """Give the command line over a folder that no test here asks for."""
    yield from command_line(tmp_path / "none", monkeypatch, capsysbinary)


@pytest.fixture
def rmos(
    stores: dict[str, Settings],
    moto: str,
    line: CommandLine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Done]:
    """Give what runs a command over one of the stores, in a folder of its own."""
    point_at(monkeypatch, moto)

    def run(kind: str, *words: str) -> Done:
        settings = stores[kind]
        for name in ("RMOS_DATA_DIR", "RMOS_STORE_URL", "RMOS_INDEX_URL"):
            monkeypatch.delenv(name, raising=False)
        if settings.index_url is None:
            line.set("RMOS_DATA_DIR", str(settings.data_dir))
        else:
            line.set("RMOS_STORE_URL", settings.store_url or "")
            line.set("RMOS_INDEX_URL", settings.index_url.get_secret_value())
        line.set("RMOS_LEDGER_KEY_FILE", str(settings.ledger_key_file))
        (tmp_path / kind).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / kind)
        return line(*words)

    return run


def same(rmos: Callable[..., Done], *words: str, status: int = 0) -> bytes:
    """Check that a command prints the same over both; return what."""
    on_disk, shared = (rmos(kind, *words) for kind in KINDS)
    assert (shared.status, shared.out) == (on_disk.status, on_disk.out), shared.err
    assert on_disk.status == status, on_disk.err
    assert on_disk.out
    return on_disk.out


def test_evidence_and_exports_are_the_same_bytes(rmos: Callable[..., Done], tmp_path: Path) -> None:
    trusted = tmp_path / "trusted"
    trusted.write_bytes(same(rmos, "ledger", "checkpoint"))
    for run_id in ("saw_1", "saw_red", "rosette_1"):
        words = ("evidence", run_id, "-o", f"{run_id}.zip", "--trusted", str(trusted), "--json")
        same(rmos, *words)
    same(rmos, "runs", "export", "--to", "all.zip", "--json")
    files = sorted(path.name for path in (tmp_path / "disk").iterdir())
    assert files == ["all.zip", "rosette_1.zip", "saw_1.zip", "saw_red.zip"]
    for name in files:
        on_disk, shared = ((tmp_path / kind / name).read_bytes() for kind in KINDS)
        assert shared == on_disk, name
    done = rmos("shared", "evidence", "none")
    assert (done.status, done.sentence) == (3, "RUN_NOT_FOUND: There is no run none.")


def test_sums_checkpoints_and_proofs_are_the_same(
    rmos: Callable[..., Done], tmp_path: Path
) -> None:
    same(rmos, "ledger", "checksums")
    same(rmos, "ledger", "checksums", "--root")
    same(rmos, "ledger", "checksums", "2025-12-19", "--json")
    same(rmos, "ledger", "prove", "saw_1", "--json")
    same(rmos, "ledger", "prove", "saw_1", "--advisory", "adv_1")
    note = same(rmos, "ledger", "checkpoint")
    (tmp_path / "trusted").write_bytes(note)
    verify = ("ledger", "verify", "--trusted", str(tmp_path / "trusted"), "--json")
    same(rmos, *verify)
    same(rmos, *verify[:-1])
