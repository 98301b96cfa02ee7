"""GET /{run_id}/evidence: the bytes that `rmos evidence` writes, or refused as it refuses."""

import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from pipeline.api.http.file_answer import FileAnswer
from pipeline.api.routes import runs
from pipeline.core.layout import attachment_path
from pipeline.ledger.keys import write_vkey
from tests.api.conftest import Api, api_over
from tests.builders import attachment, red_request, run_request, sha256
from tests.evidence.proven_stores import change, go_on, proven_store, upload
from tests.evidence.verifier.bundles import make_bundle
from tests.ledger.ledgers import SIGNER
from tests.storage.stores import change_index, row_of

PROGRAM = b"G90\nG1 Z-30\nM30\n"


@pytest.fixture
async def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    """Give an API over a store with a ledger, and an empty folder for temporary files."""
    root = proven_store(tmp_path / "store")
    write_vkey(tmp_path / "key.pem", SIGNER.key)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    async with api_over(root, ledger_key_file=tmp_path / "key.pem") as running:
        yield running


def temporary_files(tmp_path: Path) -> list[str]:
    """Return the temporary files that have a name, or that this process has open."""
    folder = tmp_path / "temporary"
    found = list(map(str, folder.iterdir()))
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(str(descriptor.readlink()))
    return [each for each in found if str(folder) in each]


async def refused(api: Api, run_id: str) -> tuple[int, str]:
    answer = await api.get(f"/{run_id}/evidence")
    return answer.status_code, answer.json()["error"]


async def test_the_bundle_is_the_one_of_the_command(api: Api, tmp_path: Path) -> None:
    upload(api.root)
    for run_id in ("saw_1", "saw_red", "rosette_1"):
        answer = await api.get(f"/{run_id}/evidence")
        expected = make_bundle(api.root, tmp_path / f"{run_id}.zip", run_id).read_bytes()
        assert answer.content == expected
        assert answer.headers["content-length"] == str(len(expected))
        assert answer.headers["content-type"] == "application/zip"
        assert answer.headers["content-disposition"] == (
            f'attachment; filename="evidence-{run_id}.zip"'
        )
    assert temporary_files(tmp_path) == []


async def test_a_tag_stands_for_the_bytes(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await api.get("/saw_1/evidence")
    tag = first.headers["etag"]
    with monkeypatch.context() as patch:
        patch.setattr(runs, "write_bundle", None)
        again = await api.get("/saw_1/evidence", **{"If-None-Match": tag})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        head = await api.http.head("/api/rmos/runs/saw_1/evidence")
        assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", tag)
    assert (await api.get("/saw_red/evidence")).headers["etag"] != tag
    go_on(api.root, requests=[(0, run_request(run_id="later"))], start=4)
    later = await api.get("/saw_1/evidence", **{"If-None-Match": tag})
    assert later.status_code == 200
    assert later.headers["etag"] != tag
    assert later.content != first.content


async def test_a_blob_that_comes_changes_the_tag(api: Api) -> None:
    before = (await api.get("/rosette_1/evidence")).headers["etag"]
    upload(api.root)
    assert (await api.get("/rosette_1/evidence")).headers["etag"] != before


async def test_nothing_that_is_withheld_is_in_a_bundle(api: Api) -> None:
    inline, attached, named = (PROGRAM.replace(b"30", depth) for depth in (b"30", b"31", b"32"))
    withholding = red_request(
        run_id="withholding",
        outputs={"gcode_text": inline.decode(), "gcode_path": attachment_path(sha256(named))},
        attachments=[
            attachment(attached, kind="gcode", filename="part.nc"),
            attachment(named, kind="debug", filename="log.txt"),
        ],
        request={"password": "hunter2"},
    )
    go_on(api.root, requests=[(0, withholding)], start=4)
    # Also where the blob itself is in the store.
    upload(api.root, attached)
    answer = await api.get("/withholding/evidence")
    assert answer.status_code == 200
    for kept in (inline, attached, named, b"hunter2"):
        assert kept not in answer.content
    assert sha256(attached).encode() in answer.content


async def test_what_is_not_there_is_not_looked_for_in_the_logs(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "gather_evidence", None)
    for run_id in ("none", "x" * 300):
        assert await refused(api, run_id) == (404, "RUN_NOT_FOUND"), run_id


async def test_what_is_not_what_was_stored_is_refused(api: Api) -> None:
    change(api.root / row_of(api.root, "saw_1")["artifact_path"], b"maple", b"mople")
    assert await refused(api, "saw_1") == (500, "ARTIFACT_CORRUPT")
    blob = upload(api.root)
    change(blob, b"uploaded", b"Uploaded")
    assert await refused(api, "rosette_1") == (500, "NOT_PROVEN")
    change(
        next((api.root / "ledger").rglob("checkpoint")).parents[1]
        / "rmos.runs.requests-1"
        / "checkpoint",
        b"rmos.runs",
        b"rmos.Runs",
    )
    assert await refused(api, "router_1") == (500, "NOT_PROVEN")
    change_index(api.root, "UPDATE runs SET source_offset = NULL")
    assert await refused(api, "saw_red") == (500, "RUN_UNEXPLAINED")


async def test_without_the_key_there_is_no_evidence(api: Api, tmp_path: Path) -> None:
    (tmp_path / "key.pem.vkey").unlink()
    assert await refused(api, "saw_1") == (503, "STORE_UNAVAILABLE")


async def test_a_full_disk_leaves_nothing_behind(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_bundle(file: Any, *_rest: Any) -> None:
        file.write(b"PK")
        assert len(temporary_files(tmp_path)) == 1
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runs, "write_bundle", write_bundle)
    assert await refused(api, "saw_1") == (503, "STORE_UNAVAILABLE")
    assert temporary_files(tmp_path) == []


async def test_a_bundle_is_made_in_threads_of_transfers(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def noting(name: str) -> None:
        real = getattr(runs, name)

        def call(*arguments: Any) -> Any:
            seen.append(threading.current_thread().name.partition("_")[0])
            return real(*arguments)

        monkeypatch.setattr(runs, name, call)

    for name in ("gather_evidence", "bundle_tag", "write_bundle"):
        noting(name)
    assert (await api.get("/saw_1/evidence")).status_code == 200
    assert seen == ["transfer"] * 3


async def test_a_file_is_closed_where_its_client_goes_away() -> None:
    closed: list[str] = []

    async def pieces() -> AsyncGenerator[bytes]:
        try:
            while True:
                yield b"piece"
        finally:
            closed.append("pieces")

    async def send(message: Any) -> None:
        if message.get("body"):
            raise OSError

    async def receive() -> Any:
        return {"type": "http.request"}

    async with aclosing(pieces()) as given:
        answer = FileAnswer(given, lambda: closed.append("file"), 200, {})
        with pytest.raises(ClientDisconnect):
            await answer({"type": "http", "asgi": {"spec_version": "2.4"}}, receive, send)
    assert closed == ["pieces", "file"]
