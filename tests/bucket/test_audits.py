"""Audits of a store in a bucket say what they say of the same records on a disk."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("psycopg", reason="the extra scale is not installed")
pytest.importorskip("obstore", reason="the extra scale is not installed")

import psycopg

from pipeline.api.application import create_api
from pipeline.audit import journal
from pipeline.audit.audited_store import AuditedStore, audited_store
from pipeline.audit.checks.logs import BrokerView
from pipeline.audit.journal import write_report
from pipeline.audit.rules.finding import VERSIONS_NOT_SEEN
from pipeline.audit.worker import handler
from pipeline.audit.worker import run as audit_run
from pipeline.audit.worker.handler import AuditHandler
from pipeline.audit.worker.run import Auditing
from pipeline.consumers.engine.readiness import Backoff
from pipeline.core.store.files import Files
from pipeline.errors import StoreAwayError, StoreError
from pipeline.page.pages import pages
from pipeline.settings import Settings
from pipeline.storage.advisory_store import AdvisoryStore
from pipeline.storage.reader import RunReader
from pipeline.storage.run_store import RunStore
from pipeline.storage.store import create, init_key, open_to_read
from tests.api.conftest import api_dependencies
from tests.audit.audited import (
    DRAWING,
    LINK,
    LOG,
    RUN,
    Audited,
    add_file,
    add_runs,
    audit,
    audit_store,
    audited_records,
    blob,
    make_audited,
)
from tests.audit.test_parts import check_same as check_same_in_parts
from tests.audit.test_parts import counted_rows, in_parts
from tests.audit.worker.test_handler import NOW, Audits, Told
from tests.bucket.buckets import commit, shared_settings
from tests.bucket.servers import BUCKET, overwritten, point_at, s3_client
from tests.cli.command_line import CommandLine, command_line
from tests.conftest import Servers
from tests.ledger.ledgers import KEYS, STORE_ID
from tests.page.conftest import HTML
from tests.storage.stores import make_store


def fill(settings: Settings) -> None:
    """Make a store of many hosts with the records of `make_audited`."""
    create(settings, cluster_id="cluster-1", store_id=STORE_ID)
    init_key(settings)
    runs, others, advisories = audited_records()
    for kind, records in ((RunStore, runs), (RunStore, others), (AdvisoryStore, advisories)):
        commit(settings, kind, records)


@pytest.fixture(scope="module")
def made(moto: str, servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("audited")
    settings = shared_settings(folder, servers)
    with pytest.MonkeyPatch.context() as patch:
        point_at(patch, moto)
        fill(settings)
    return settings


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("disk") / "store"
    make_audited(root)
    make_store(older := root.with_name("older"))
    add_runs(older, audited_records()[0][:6])
    return root


@pytest.fixture
def store(moto: str, made: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[AuditedStore]:
    point_at(monkeypatch, moto)
    opened = audited_store(made)
    yield opened
    opened.let_go()


SCOPES = {
    "all": {"all": True},
    "dates": {"dates": ["2025-12-18", "2025-12-19"]},
    "runs": {"run_ids": ["run_red", "run_drawing", "run_of_nobody"]},
}


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("mode", ["quick", "full"])
def test_an_audit_of_a_bucket_says_what_it_says_of_a_disk(
    store: AuditedStore, disk: Path, mode: str, scope: str
) -> None:
    check_same(audit_store(store, mode, SCOPES[scope]), audit(disk, mode, SCOPES[scope]))


def check_same(found: Audited, expected: Audited) -> None:
    assert found.findings == expected.findings
    assert found.parts == expected.parts
    integrity = found.report["verdicts"]["integrity"]
    assert integrity["reason"].endswith(VERSIONS_NOT_SEEN)
    integrity["reason"] = integrity["reason"].removesuffix(VERSIONS_NOT_SEEN)
    assert found.report == expected.report


def test_processes_of_their_own_open_what_the_settings_name(
    store: AuditedStore, disk: Path
) -> None:
    check_same(audit_store(store, processes=1), audit(disk))


def test_an_audit_that_fails_at_its_begin_leaves_no_transaction(
    store: AuditedStore, made: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> bool:
        message = "the bucket does not answer"
        raise StoreAwayError(message)

    monkeypatch.setattr(store.inspection, "keeps_versions", fail)
    with pytest.raises(StoreAwayError, match="does not answer"):
        audit_store(store)
    assert made.index_url is not None
    with psycopg.connect(made.index_url.get_secret_value()) as database:
        left = database.execute(
            "SELECT query FROM pg_stat_activity WHERE datname = current_database()"
            " AND state LIKE 'idle in transaction%'"
        )
        assert left.fetchall() == []


@pytest.fixture
def bucket(moto: str, made: Settings) -> Iterator["Attacked"]:
    with closing(Attacked(s3_client(moto), made.store_url or "")) as attacked:
        yield attacked


class Attacked:
    """The objects of a store, as who may write the bucket has them; `close` puts them back."""

    def __init__(self, client: Any, store_url: str) -> None:
        self._client = client
        self._prefix = store_url.removeprefix(f"s3://{BUCKET}/")
        self._before: dict[str, bytes | None] = {}

    def content(self, path: str) -> bytes | None:
        named = {"Bucket": BUCKET, "Key": f"{self._prefix}/{path}"}
        try:
            return bytes(self._client.get_object(**named)["Body"].read())
        except self._client.exceptions.NoSuchKey:
            return None

    def put(self, path: str, content: bytes | None) -> None:
        self._before.setdefault(path, self.content(path))
        named = {"Bucket": BUCKET, "Key": f"{self._prefix}/{path}"}
        if content is None:
            self._client.delete_object(**named)
        else:
            self._client.put_object(**named, Body=content)

    def close(self) -> None:
        for path, content in self._before.items():
            self.put(path, content)
        self._client.close()


FOREIGN, CHECKPOINT = b"evil", f"{LOG}/checkpoint"
DRAWN = blob(DRAWING)
DAMAGES: dict[str, dict[str, bytes | None]] = {
    "files that nothing explains": dict.fromkeys(
        (
            *("evil.txt", "evil/x", "runs/x.txt", "runs/notdate/x", "runs/2031-01-02"),
            *("runs/2025-12-18/x.json", "runs/2025-12-18/\xe9.json", "runs/2031-01-01/run_x.json"),
            *("attachments/x", "attachments/zz/x", "attachments/00/00/x", blob("a") + "0"),
            *(blob("never sent"), blob("of no run", "quarantine"), "quarantine/x"),
            *("awaited/x", "audits/x.txt", "archives/x"),
        ),
        FOREIGN,
    ),
    "files in the ledger": dict.fromkeys(
        (
            *("ledger/x", "ledger/1/x", "ledger/1/y/z", f"{LOG}/x", f"{LOG}/foo/bar"),
            *(f"{LOG}/tile/entries/x", f"{LOG}/tile/0/005", f"{LOG}/tile/9/000"),
            *(f"{LOG}/tile/0/000.p/200", f"{LOG}/tile/0/000.p/2"),
        ),
        FOREIGN,
    ),
    "other bytes": dict.fromkeys((RUN, DRAWN), FOREIGN),
    "a run and its link are deleted": dict.fromkeys((RUN, LINK)),
    "an attachment is deleted": {DRAWN: None},
    "a bundle is deleted": {f"{LOG}/tile/entries/000.p/11": None},
    "a tile is deleted": {f"{LOG}/tile/0/000.p/11": None},
    "a tile has other bytes": {f"{LOG}/tile/0/000.p/11": FOREIGN},
    "a checkpoint is deleted": {CHECKPOINT: None},
    "a checkpoint has other bytes": {CHECKPOINT: FOREIGN},
}
READ_IN_FULL = ("other bytes", "a run and its link are deleted")


@pytest.mark.parametrize("damage", [*DAMAGES, "quarantine is emptied", "an older checkpoint"])
def test_a_damage_is_found_in_a_bucket_as_on_a_disk(
    store: AuditedStore, bucket: Attacked, disk: Path, tmp_path: Path, damage: str
) -> None:
    root = shutil.copytree(disk, tmp_path / "damaged")
    for path, content in damages_of(damage, disk).items():
        bucket.put(path, content)
        (root / path).unlink(missing_ok=True)
        if content is not None:
            add_file(root / path, content)
    for mode in ("quick", "full") if damage in READ_IN_FULL else ("full",):
        expected = codes_and_paths(audit(root, mode))
        assert codes_and_paths(audit_store(store, mode)) == expected
    assert expected


def damages_of(damage: str, disk: Path) -> Mapping[str, bytes | None]:
    if damage == "quarantine is emptied":
        below = (disk / "quarantine").rglob("*")
        return {str(each.relative_to(disk)): None for each in below if each.is_file()}
    if damage == "an older checkpoint":
        return {CHECKPOINT: (disk.parent / "older" / CHECKPOINT).read_bytes()}
    return DAMAGES[damage]


def codes_and_paths(found: Audited) -> set[tuple[str, str]]:
    # A bucket has no modes.
    return {(each.code, each.path) for each in found.findings if each.code != "MODE_DIFFERS"}


STRANGE_KEYS = {
    "runs/2025-12-18//x": "FILE_UNEXPLAINED",
    "runs/2025-12-18/": "FILE_UNEXPLAINED",
    f"{RUN}/": "FILE_UNEXPLAINED",
    "runs//": "FILE_UNEXPLAINED",
    "runs/": "FILE_UNEXPLAINED",
    "attachments/aa//x": "FILE_UNEXPLAINED",
    "attachments/aa/bb/": "FILE_UNEXPLAINED",
    "attachments/": "FILE_UNEXPLAINED",
    "/": "STRANGE_FILE",
    "ledger//x": "STRANGE_FILE",
    "ledger/1/": "STRANGE_FILE",
    f"{LOG}/": "STRANGE_FILE",
    f"{LOG}/tile//": "STRANGE_FILE",
    "awaited/": "STRANGE_FILE",
}


def test_a_key_that_no_client_of_ours_makes_is_found_by_name_and_an_empty_folder_is_none(
    store: AuditedStore, bucket: Attacked
) -> None:
    folders = [key for key in STRANGE_KEYS if not key.endswith("x")]
    for key in (*folders, "evil/", "runs/evil/", "ledger/evil/", f"{LOG}/evil/"):
        bucket.put(key, b"")
    clean = audit_store(store)
    assert clean.findings == []
    for key in STRANGE_KEYS:
        bucket.put(key, FOREIGN)
    for mode in ("quick", "full"):
        found = audit_store(store, mode)
        assert {each.path: each.code for each in found.findings} == STRANGE_KEYS
    assert found.report["counts"]["artifacts"] == clean.report["counts"]["artifacts"]


@pytest.fixture
def audits(
    store: AuditedStore, made: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Audits:
    """Give what handles requests for audits, on a host of its own."""

    async def nothing_committed(*_: Any) -> BrokerView:
        return BrokerView({}, lambda *_: [])

    monkeypatch.setattr(audit_run, "broker_view", nothing_committed)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    settings = made.model_copy(update={"audit_processes": 0})
    told = Told(settings)
    auditing = Auditing(settings, store, lambda: KEYS, list, lambda: NOW)
    return Audits(tmp_path, AuditHandler(auditing, told, Backoff(0.001)), told)


@pytest.fixture
def rmos(
    made: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
) -> Iterator[CommandLine]:
    for line in command_line(tmp_path / "none", monkeypatch, capsysbinary):
        monkeypatch.delenv("RMOS_DATA_DIR")
        assert made.index_url is not None
        line.set("RMOS_STORE_URL", made.store_url or "")
        line.set("RMOS_INDEX_URL", made.index_url.get_secret_value())
        yield line


def journals_in(folder: Path) -> list[Path]:
    return list(folder.rglob("*.ndjson"))


async def test_report_and_findings_become_objects_and_nothing_is_left_on_the_host(
    audits: Audits, store: AuditedStore, made: Settings, rmos: CommandLine
) -> None:
    with overwritten(made, RUN, b"{}"):
        await audits.handle(audit_id="kept")
    assert journals_in(audits.root) == []
    (report,) = audits.told.of("reports")
    assert json.loads(store.files.read("audits/kept.json", 1 << 20)) == report
    lines = store.files.read("audits/kept.ndjson", 1 << 20).splitlines()
    found = [each for each in map(json.loads, lines) if "code" in each]
    assert found == audits.told.of("findings")
    assert "begun" in json.loads(lines[0])
    await audits.handle(1, audit_id="kept")
    assert audits.told.of("reports") == [report] * 2
    await check_pages(made, report)
    done = rmos("audit", "report", "kept", "--json")
    assert (done.status, done.document) == (5, report)
    assert rmos("audit", "report", "none").status == 3


async def check_pages(settings: Settings, report: dict[str, Any]) -> None:
    asked = dict.fromkeys(("/audits", "/audits/kept", "/ledger"), HTML)
    listed, shown, ledger = (each.text for each in await answers(settings, asked))
    assert 'href="/audits/kept"' in listed
    assert RUN in shown
    assert report["verdicts"]["integrity"]["reason"] in shown
    assert "kept" in ledger


async def test_the_public_part_of_the_key_is_all_that_an_api_needs_to_prove(
    store: AuditedStore, made: Settings, tmp_path: Path
) -> None:
    key_file = made.ledger_key_file
    assert key_file is not None
    settings = made.model_copy(update={"ledger_key_file": tmp_path / key_file.name})
    asked = {"/runs/run_0/evidence": {"Accept": "application/zip"}, "/ledger": HTML}
    refused = (await answers(settings, asked))[0]
    assert refused.status_code == 503
    shutil.copy(f"{key_file}.vkey", tmp_path)
    found = await answers(settings, asked)
    assert [each.status_code for each in found] == [200, 200]
    assert found[0].content == (await answers(made, asked))[0].content
    assert "There is no ledger key" not in found[1].text


async def answers(settings: Settings, asked: dict[str, dict[str, str]]) -> list[httpx.Response]:
    deps = api_dependencies(settings, RunReader(open_to_read(settings)))
    transport = httpx.ASGITransport(create_api(deps, None, pages()))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
        found = [await http.get(path, headers=headers) for path, headers in asked.items()]
    deps.reader.close()
    return found


async def test_a_bucket_that_is_away_puts_an_audit_off_which_then_goes_on(
    audits: Audits, store: AuditedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report is there and the findings are not: they follow from the journal of this host."""
    upload, left = journal.upload_journal, [1]

    def fail_once(*given: Any) -> bool:
        if left:
            left.pop()
            message = "the bucket does not answer"
            raise StoreAwayError(message)
        return upload(*given)

    monkeypatch.setattr(journal, "upload_journal", fail_once)
    await audits.handle(audit_id="put_off")
    assert not left
    assert len(audits.told.of("reports")) == 1
    assert store.files.present(["audits/put_off.ndjson"])
    assert journals_in(audits.root) == []


async def test_hosts_share_an_audit_in_parts_and_say_what_is_said_of_a_disk(
    audits: Audits,
    store: AuditedStore,
    made: Settings,
    disk: Path,
    bucket: Attacked,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One host dies when the report of its part is there, and never comes back."""
    host = audits.root
    root = shutil.copytree(disk, host / "damaged")
    damaged = {path: content for each in DAMAGES.values() for path, content in each.items()}
    for path, content in damaged.items():
        if path not in {CHECKPOINT, LINK, f"{LOG}/tile/entries/000.p/11"}:
            bucket.put(path, content)
            (root / path).unlink(missing_ok=True)
            if content is not None:
                add_file(root / path, content)
    told, on_host = hosts(host, store, made, monkeypatch)
    await on_host("a").handle(audit_id="in_parts")
    first, second, third = told.of("requests")
    with monkeypatch.context() as patch:
        patch.setattr(handler, "write_report", killed)
        with pytest.raises(StoreError, match="killed"):
            await on_host("a").handle(**first)
    await on_host("b").handle(**second)
    assert told.of("reports") == []
    await on_host("c").handle(**third)
    (report,) = told.of("reports")
    await on_host("b").handle(**first)
    assert told.of("reports") == [report] * 2
    lines = store.files.read("audits/in_parts.ndjson", 1 << 20).splitlines()
    found = {(each["code"], each["path"]) for each in map(json.loads, lines)}
    whole = audit(root)
    assert found == codes_and_paths(whole)
    assert len(lines) == len(found)
    assert report["codes"] == {
        code: number for code, number in whole.report["codes"].items() if code != "MODE_DIFFERS"
    }
    assert journals_in(host) == []


def hosts(
    folder: Path, store: AuditedStore, made: Settings, monkeypatch: pytest.MonkeyPatch
) -> tuple[Told, Callable[[str], Audits]]:
    """Return what all hosts publish, and what makes a worker on the host of this name."""
    settings = made.model_copy(update={"audit_processes": 0, "audit_parts": 3})
    told, auditing = Told(settings), Auditing(settings, store, lambda: KEYS, list, lambda: NOW)

    def on_host(name: str) -> Audits:
        monkeypatch.setenv("XDG_STATE_HOME", str(folder / name))
        return Audits(folder, AuditHandler(auditing, told, Backoff(0.001)), told)

    return told, on_host


async def test_the_whole_fails_by_the_report_of_a_part_whose_findings_are_of_another_host(
    audits: Audits,
    store: AuditedStore,
    made: Settings,
    bucket: Attacked,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One host dies between findings and report of a part; then a file is lost."""
    told, on_host = hosts(audits.root, store, made, monkeypatch)
    await on_host("a").handle(audit_id="of_two")
    asked = told.of("requests")
    with monkeypatch.context() as patch:
        patch.setattr(handler, "write_report", lambda *_: killed_at_once())
        for each in asked:
            with pytest.raises(StoreError, match="killed"):
                await on_host("a").handle(**each)
    bucket.put(RUN, None)
    for each in asked:
        await on_host("b").handle(**each)
    (report,) = told.of("reports")
    assert report["codes"] == {"FILE_MISSING": 1}
    assert report["verdicts"]["integrity"]["result"] == "failed"
    assert [each["path"] for each in told.of("findings")] == [RUN]


def test_parts_find_in_a_database_what_a_leaf_alone_says(
    store: AuditedStore, made: Settings, bucket: Attacked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run without its file, whose row says another date: the leaves are read once more.

    Rows of runs that no leaf is of, from times that have no date.
    """
    with monkeypatch.context() as patch:
        kept = counted_rows(patch)
        in_parts(lambda audit_id: audit_store(store, audit_id=audit_id))
        audit_store(store)
    *parts, rows = kept
    assert {name: sum(each[name] for each in parts) for name in rows} == rows
    bucket.put("runs/2025-12-18/run_3.json", None)
    assert made.index_url is not None
    move = "UPDATE runs SET created_at_us = created_at_us - %s WHERE run_id = 'run_3'"
    days_us = 10_000 * 86_400_000_000
    forge = """INSERT INTO runs SELECT (jsonb_populate_record(runs, jsonb_build_object(
        'run_id', %s::text, 'created_at_us', %s::bigint))).* FROM runs WHERE run_id = 'run_3'"""
    with psycopg.connect(made.index_url.get_secret_value(), autocommit=True) as database:
        database.execute(move, (days_us,))
        for run_id, created_at_us in (("forged_1", 2**63 - 1), ("forged_2", -(2**63))):
            database.execute(forge, (run_id, created_at_us))
        whole = audit_store(store)
        found, report = in_parts(lambda audit_id: audit_store(store, audit_id=audit_id))
        database.execute(move, (-days_us,))
        database.execute("DELETE FROM runs WHERE run_id LIKE 'forged%'")
    assert whole.report["codes"] == {"FILE_MISSING": 1, "INDEX_DIFFERS": 2}
    check_same_in_parts(found, report, whole)


def killed(files: Files, report: dict[str, Any]) -> None:
    write_report(files, report)
    killed_at_once()


def killed_at_once() -> None:
    message = "killed"
    raise StoreError(message)


async def test_an_audit_that_another_host_has_finished_leaves_no_half_of_it(
    audits: Audits, store: AuditedStore, made: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = journal.Journals.of(made, store.files).take("given_up")
    assert half is not None
    half.close()
    begun = journals_in(audits.root)
    with monkeypatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(audits.root / "another_host"))
        other = Auditing(made, store, lambda: KEYS, list, lambda: NOW)
        told = Told(made)
        await Audits(audits.root, AuditHandler(other, told, Backoff(0.001)), told).handle(
            audit_id="given_up"
        )
    # It died before its findings became an object.
    store.files.remove(["audits/given_up.ndjson"])
    await audits.handle(audit_id="given_up")
    assert audits.told.of("reports") == told.of("reports")
    assert not store.files.present(["audits/given_up.ndjson"])
    assert begun
    assert journals_in(audits.root) == []
