"""Commands that only read, over a store on a volume that is mounted read-only; so does the API."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.audit.journal import write_report
from pipeline.disk.durable_files import DurableFiles
from pipeline.storage.run_store import RunStore
from pipeline.storage.store import open_store_to_write
from tests.api.conftest import api_over
from tests.audit.audited import audit
from tests.builders import run_request
from tests.cli.command_line import CommandLine
from tests.cli.test_archive import PROGRAM
from tests.cli.test_ledger_proofs import key_file
from tests.disk.mounts import mounted, run_program, why_not
from tests.evidence.proven_stores import REQUESTS, proven_store, upload
from tests.storage.stores import files, judged_record

NO_MOUNT = why_not()
pytestmark = pytest.mark.skipif(NO_MOUNT is not None, reason=NO_MOUNT or "")

READING = (
    *("runs list", "runs show saw_1", "runs download saw_1", "runs diff saw_1 saw_2"),
    *("runs advisories saw_1", "runs attachments saw_1", "runs verify saw_1"),
    *("runs list --tool-id-prefix saw: --json", "runs export --to {elsewhere}"),
    *("store status", "store status --json", "index check"),
)
PROVING = (
    *("ledger checkpoint", "ledger verify --trusted {0}/held", "ledger prove saw_1"),
    *("ledger checksums", "evidence saw_1 -o {0}/saw_1.zip", "archive verify {0}/old.tar"),
    *("runs of-file {0}/program", "runs draw saw_own", "audit report audit_1"),
)


@pytest.fixture
def mount(rmos_with_runs: CommandLine, tmp_path: Path) -> Iterator[Path]:
    """Give the store of the command line at a second place, where nothing can be written."""
    with mounted(tmp_path / "mount", "--bind", str(rmos_with_runs.data_dir)) as mount:
        run_program("mount", "-o", "remount,ro,bind", str(mount))
        with pytest.raises(OSError, match="Read-only"):
            (mount / "probe").touch()
        rmos_with_runs.set("RMOS_DATA_DIR", str(mount))
        yield mount


def test_what_only_reads_works_and_leaves_everything(
    rmos_with_runs: CommandLine, mount: Path, tmp_path: Path
) -> None:
    before = files(rmos_with_runs.data_dir)
    elsewhere = tmp_path / "runs.zip"
    for line in READING:
        done = rmos_with_runs(*line.format(elsewhere=elsewhere).split())
        assert done.status == 0, (line, done.err)
        elsewhere.unlink(missing_ok=True)
    assert files(rmos_with_runs.data_dir) == before
    assert len(rmos_with_runs("runs", "list").text.splitlines()) == 6
    assert mount.is_dir()


def test_what_proves_works_there_too(rmos: CommandLine, tmp_path: Path) -> None:
    own = run_request(run_id="saw_own", outputs={"gcode_text": PROGRAM})
    root = proven_store(rmos.data_dir, requests=[*REQUESTS, (0, own)])
    upload(root)
    rmos.set("RMOS_LEDGER_KEY_FILE", str(key_file(tmp_path / "key.pem")))
    write_report(DurableFiles(root), audit(root).report)
    (tmp_path / "program").write_text(PROGRAM)
    (tmp_path / "held").write_text(rmos("ledger", "checkpoint").text)
    made = rmos("archive", "create", "2025-12-18", "--to", str(tmp_path / "old.tar"))
    assert made.status == 0, made.err
    before = files(root)
    with mounted(tmp_path / "mount", "--bind", str(root)) as mount:
        run_program("mount", "-o", "remount,ro,bind", str(mount))
        rmos.set("RMOS_DATA_DIR", str(mount))
        for line in PROVING:
            done = rmos(*line.format(tmp_path).split())
            # The audit found records that came before their time.
            assert done.status == (5 if line.startswith("audit") else 0), (line, done.err)
    assert files(root) == before


def test_what_writes_says_that_the_volume_is_read_only(
    rmos_with_runs: CommandLine, mount: Path, tmp_path: Path
) -> None:
    (tmp_path / "blob").write_bytes(b"x")
    done = rmos_with_runs("attachments", "put", str(tmp_path / "blob"))
    assert done.status == 6
    assert f"{mount} cannot be used: Read-only file system" in done.sentence


async def test_every_get_is_answered_while_a_worker_on_the_other_mount_goes_on(
    rmos_with_runs: CommandLine, mount: Path
) -> None:
    async with api_over(mount) as api:
        for path in ("", "/saw_1", "/saw_1/download", "/saw_1/advisories", "/saw_1/attachments"):
            assert (await api.get(path)).status_code == 200, path
        assert len((await api.get()).json()["items"]) == 5
    with closing(RunStore(open_store_to_write(rmos_with_runs.data_dir))) as store:
        store.commit([judged_record(run_request(run_id="later"), offset=99)])
        async with api_over(mount) as api:
            assert (await api.get("/later")).status_code == 200
