"""One audit request handled over a real store: what is told, and what happens to faults."""

import asyncio
import json
import threading
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from aiokafka import ConsumerRecord
from aiokafka.structs import RecordMetadata

from pipeline.audit.audited_store import audited_folder
from pipeline.audit.checks.logs import BrokerView
from pipeline.audit.journal import AuditJournal, journal_name, report_name, write_report
from pipeline.audit.store_audit import StoreAudit
from pipeline.audit.worker import asking, handler
from pipeline.audit.worker import run as audit_run
from pipeline.audit.worker.handler import AuditHandler
from pipeline.audit.worker.run import Auditing
from pipeline.broker.sending.batches import BatchSender, Message
from pipeline.consumers.engine.readiness import PUT_OFF_LIMIT, Backoff, Standing
from pipeline.core.json.canonical import canonical_json
from pipeline.core.progress import Progress
from pipeline.disk.durable_files import DurableFiles
from pipeline.errors import BrokerError, ExecutorError, StoreError
from pipeline.settings import Settings
from tests.audit.audit_reports import REPORT
from tests.audit.audited import (
    DRAWING,
    LOG,
    RUN,
    Template,
    blob,
    flip,
    make_audited,
    overwrite,
)
from tests.ledger.ledgers import KEYS

NOW = datetime(2026, 2, 1, 10, 0, tzinfo=UTC)
REQUEST: dict[str, Any] = {"audit_id": "a", "scope": {"all": True}, "mode": "full"}


class Told(BatchSender):
    """Keeps what it is given; fails as often as it is told to."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.messages: list[Message] = []
        self.failures = 0
        self.standing: Standing | None = None
        self.reasons: list[str] = []

    async def send(self, messages: Iterable[Message]) -> None:
        if self.standing is not None:
            self.reasons += self.standing.reasons
        if self.failures:
            self.failures -= 1
            message = "no broker answers"
            raise BrokerError(message)
        self.messages += messages

    def of(self, topic: str) -> list[Any]:
        return [
            json.loads(cast("bytes", each.value))
            for each in self.messages
            if each.topic == f"rmos.audits.{topic}"
        ]

    def codes(self) -> list[str]:
        return [
            cast("bytes", dict(each.headers)["rmos-error-code"]).decode()
            for each in self.messages
            if each.topic == "rmos.audits.dead-letters"
        ]


class Audits:
    def __init__(self, root: Path, handler: AuditHandler, told: Told) -> None:
        self.root = root
        self.told = told
        self._handler = handler
        told.standing = handler.standing

    @property
    def reasons(self) -> tuple[str, ...]:
        return self._handler.standing.reasons

    async def handle(self, offset: int = 0, **changes: Any) -> None:
        request = REQUEST | changes
        key, value = request["audit_id"].encode(), json.dumps(request).encode()
        headers = [("traceparent", b"00-1")]
        record = record_of("rmos.audits.requests", key, value, headers, offset)
        await self._handler.handle(record)


def record_of(topic: str, key: Any, value: Any, headers: Any, offset: int = 0) -> ConsumerRecord:
    return ConsumerRecord(
        topic=topic,
        partition=1,
        offset=offset,
        timestamp=1_766_066_602_123,
        timestamp_type=0,
        key=key,
        value=value,
        checksum=None,
        serialized_key_size=len(key),
        serialized_value_size=len(value),
        headers=headers,
    )


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    root = tmp_path_factory.mktemp("audited") / "store"
    make_audited(root)
    return Template(root)


@pytest.fixture
async def audits(template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Audits:
    async def nothing_committed(*_: Any) -> BrokerView:
        return BrokerView({}, lambda *_: [])

    monkeypatch.setattr(audit_run, "broker_view", nothing_committed)
    return audits_of(template.copy_to(tmp_path / "store"))


def audits_of(root: Path, parts: int = 1) -> Audits:
    settings = Settings(data_dir=root, audit_processes=0, audit_parts=parts)
    told = Told(settings)
    auditing = Auditing(settings, audited_folder(root), lambda: KEYS, list, lambda: NOW)
    return Audits(root, AuditHandler(auditing, told, Backoff(0.001)), told)


async def ask_in_parts(root: Path) -> tuple[Audits, list[dict[str, Any]]]:
    """Ask for an audit in three parts; return the requests of the parts."""
    audits = audits_of(root, parts=3)
    await audits.handle()
    asked = audits.told.of("requests")
    assert audits.told.of("reports") == []
    assert [each.key for each in audits.told.messages] == [
        each["audit_id"].encode() for each in asked
    ]
    assert len({each.partition % 3 for each in audits.told.messages}) == 3
    return audits, asked


def report_of(asked: dict[str, Any]) -> dict[str, Any]:
    return REPORT | {name: asked[name] for name in ("audit_id", "scope", "mode")}


async def test_parts_are_asked_for_and_the_last_one_reports_the_whole(audits: Audits) -> None:
    flip(audits.root / RUN, 100)
    (audits.root / blob(DRAWING)).unlink()
    (audits.root / LOG / "tile/0/000.p/11").unlink()
    await audits.handle(audit_id="b")
    (expected,) = audits.told.of("reports")
    in_parts, asked = await ask_in_parts(audits.root)
    for at in (1, 2, 0):
        assert in_parts.told.of("reports") == []
        await in_parts.handle(**asked[at])
    (report,) = in_parts.told.of("reports")
    same = ("scope", "mode", "counts", "codes", "logs")
    assert {name: report[name] for name in same} == {name: expected[name] for name in same}
    assert report["codes"] == {"ATTACHMENT_MISSING": 1, "BYTES_DIFFER": 1, "TILE_DIFFERS": 1}
    published = {canonical_json(each) for each in in_parts.told.of("findings")}
    lines = (audits.root / "audits" / "a.ndjson").read_bytes().splitlines()
    assert set(lines) < published, "of a blob that two parts miss both tell"
    told = [json.loads(line) | {"audit_id": "b"} for line in lines]
    assert sorted(map(str, told)) == sorted(map(str, audits.told.of("findings")))
    # Asked for again, a part or the whole has the same report.
    for again in (asked[1], {}):
        await in_parts.handle(**again)
    assert in_parts.told.of("reports") == [report] * 3
    assert in_parts.told.of("requests") == asked


@pytest.mark.parametrize("step", ["join_parts", "write_report"])
async def test_killed_between_the_last_part_and_the_whole_its_request_heals_it(
    audits: Audits, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    in_parts, asked = await ask_in_parts(audits.root)
    for each in asked[:2]:
        await in_parts.handle(**each)
    original = getattr(handler, step)

    def killed(files: Any, of: Any, *rest: Any) -> Any:
        if step == "join_parts" or of["audit_id"] == "a":
            raise StoreError("killed")
        return original(files, of, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(handler, step, killed)
        with pytest.raises(StoreError, match="killed"):
            await in_parts.handle(**asked[2])
    assert in_parts.told.of("reports") == []
    runs = counted(monkeypatch)
    # By whichever worker has the partition now.
    after = audits_of(audits.root)
    await after.handle(**asked[2])
    assert [each["audit_id"] for each in after.told.of("reports")] == ["a"]
    assert runs == []


async def test_parts_are_asked_for_again_where_the_whole_has_no_report(audits: Audits) -> None:
    in_parts, asked = await ask_in_parts(audits.root)
    await in_parts.handle(1)
    assert in_parts.told.of("requests") == asked * 2
    for done, again in ((asked[:2], asked[2:]), (asked[2:], asked[:1])):
        for each in done:
            write_report(DurableFiles(audits.root), report_of(each))
        in_parts.told.messages.clear()
        await in_parts.handle(2)
        assert in_parts.told.of("requests") == again


async def test_an_audit_of_dates_is_never_cut_into_parts(audits: Audits) -> None:
    in_parts = audits_of(audits.root, parts=3)
    await in_parts.handle(scope={"dates": ["2025-12-18"]})
    assert in_parts.told.of("requests") == []
    assert len(in_parts.told.of("reports")) == 1


@pytest.mark.parametrize("in_place", ["nothing", "folder"])
async def test_a_part_without_its_findings_is_a_dead_letter(audits: Audits, in_place: str) -> None:
    in_parts, asked = await ask_in_parts(audits.root)
    for each in asked[:2]:
        await in_parts.handle(**each)
    (audits.root / journal_name(asked[0]["audit_id"])).unlink()
    if in_place == "folder":
        (audits.root / journal_name(asked[0]["audit_id"])).mkdir()
    await in_parts.handle(**asked[2])
    assert in_parts.told.codes() == ["ARTIFACT_CORRUPT"]
    assert in_parts.told.of("reports") == []


async def test_what_a_part_reports_fails_the_whole_also_where_its_findings_are_lost(
    audits: Audits,
) -> None:
    flip(audits.root / RUN, 100)
    (audits.root / blob(DRAWING)).unlink()
    in_parts, asked = await ask_in_parts(audits.root)
    for each in asked[:2]:
        await in_parts.handle(**each)
    for each in asked[:2]:
        path = audits.root / journal_name(each["audit_id"])
        overwrite(path, path.read_bytes().splitlines(keepends=True)[0])
    await in_parts.handle(**asked[2])
    (report,) = in_parts.told.of("reports")
    assert report["codes"] == {"ATTACHMENT_MISSING": 1, "BYTES_DIFFER": 1}
    assert report["verdicts"]["integrity"]["result"] == "failed"
    assert report["counts"]["findings"] == 2


@pytest.mark.parametrize("change", [{"mode": "quick"}, {"scope": {"dates": ["2030-12-18"]}}])
async def test_parts_that_looked_at_something_else_are_no_part_of_a_sum(
    audits: Audits, change: dict[str, Any]
) -> None:
    """The first part became a dead letter; then somebody asks for more."""
    flip(audits.root / RUN, 100)
    _, asked = await ask_in_parts(audits.root)
    after = audits_of(audits.root)
    for each in asked[1:]:
        write_report(DurableFiles(audits.root), report_of(each) | change)
    for each in asked:
        await after.handle(**each)
    assert set(after.told.codes()) == {"AUDIT_CONFLICT"}
    assert after.told.of("reports") == []
    for name in (report_name("a"), journal_name("a")):
        assert not (audits.root / name).exists()


async def test_findings_of_the_whole_take_the_place_of_no_journal_of_another_number_of_parts(
    audits: Audits,
) -> None:
    flip(audits.root / RUN, 100)
    journal = AuditJournal.take(audits.root, "a")
    assert journal is not None
    await journal.begin({"request": REQUEST, "started_at_utc": "2026-02-01T09:00:00Z"})
    journal.close()
    before = (audits.root / journal_name("a")).read_bytes()
    in_parts, asked = await ask_in_parts(audits.root)
    for each in asked:
        await in_parts.handle(**each)
    assert in_parts.told.codes() == ["ARTIFACT_CORRUPT"]
    assert in_parts.told.of("reports") == []
    assert (audits.root / journal_name("a")).read_bytes() == before


async def test_a_part_of_another_mode_is_a_conflict(audits: Audits) -> None:
    in_parts, asked = await ask_in_parts(audits.root)
    await in_parts.handle(**asked[0])
    await in_parts.handle(**asked[0] | {"mode": "quick"})
    assert in_parts.told.codes() == ["AUDIT_CONFLICT"]
    # Who asked for the whole waits for no report.
    letter = in_parts.told.messages[-1]
    refused = record_of(letter.topic, letter.key, letter.value, letter.headers)
    request = RecordMetadata("rmos.audits.requests", 0, *[None] * 5)
    for whole, code in (("a", "AUDIT_CONFLICT"), ("b", None)):
        found = asking._refusal_of(refused, request, whole)
        assert (found and found[0]) == code


async def test_findings_are_reported_and_then_the_report(audits: Audits) -> None:
    flip(audits.root / RUN, 100)
    await audits.handle()
    (finding,) = audits.told.of("findings")
    assert (finding["code"], finding["path"]) == ("BYTES_DIFFER", RUN)
    (report,) = audits.told.of("reports")
    assert report["codes"] == {"BYTES_DIFFER": 1}
    assert report["finished_at_utc"] == "2026-02-01T10:00:00Z"
    last = audits.told.messages[-1]
    assert last.key == b"a"
    assert last.partition == 1
    assert ("traceparent", b"00-1") in last.headers
    assert (audits.root / "audits" / "a.ndjson").stat().st_mode & 0o777 == 0o444


async def test_a_broker_that_is_away_puts_the_telling_off_and_not_the_audit(
    audits: Audits, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = counted(monkeypatch)
    flip(audits.root / RUN, 100)
    audits.told.failures = 3
    await audits.handle()
    assert len(audits.told.of("findings")) == 1
    assert len(audits.told.of("reports")) == 1
    assert runs == ["a"]


async def test_a_request_that_is_put_off_again_and_again_makes_the_worker_not_ready(
    audits: Audits,
) -> None:
    audits.told.failures = PUT_OFF_LIMIT
    await audits.handle(17)
    assert audits.told.reasons == []
    audits.told.failures = PUT_OFF_LIMIT + 2
    await audits.handle(18, audit_id="b")
    assert "rmos.audits.requests, partition 1, offset 18" in audits.told.reasons[0]
    assert audits.told.reasons[0].endswith("no broker answers")
    assert audits.reasons == ()


async def test_a_damaged_report_is_a_dead_letter_and_is_not_touched(audits: Audits) -> None:
    await audits.handle()
    path = audits.root / report_name("a")
    path.chmod(0o600)
    path.write_bytes(b"{}")
    await audits.handle(1)
    assert audits.told.codes() == ["ARTIFACT_CORRUPT"]
    assert len(audits.told.of("reports")) == 1
    assert path.read_bytes() == b"{}"


async def test_a_report_that_is_gone_is_not_made_anew(audits: Audits) -> None:
    await audits.handle()
    (audits.root / report_name("a")).unlink()
    await audits.handle(1)
    assert audits.told.codes() == ["ARTIFACT_CORRUPT"]


async def test_an_audit_that_another_process_does_is_waited_for(audits: Audits) -> None:
    other = AuditJournal.take(audits.root, "a")
    assert other is not None
    handling = asyncio.create_task(audits.handle())
    # It looks again and again, and does nothing.
    done, _ = await asyncio.wait([handling], timeout=0.1)
    assert not done
    assert audits.told.messages == []
    other.close()
    await handling
    assert len(audits.told.of("reports")) == 1


async def test_an_audit_that_was_done_between_two_looks_is_not_done_again(
    audits: Audits, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = counted(monkeypatch)
    take = AuditJournal.take

    def take_late(root: Path, audit_id: str) -> AuditJournal | None:
        write_report(DurableFiles(root), REPORT | {"mode": "full"})
        return take(root, audit_id)

    monkeypatch.setattr(AuditJournal, "take", take_late)
    await audits.handle()
    assert audits.told.of("reports") == [REPORT | {"mode": "full"}]
    assert runs == []


async def test_an_audit_that_was_begun_with_another_scope_is_a_conflict(audits: Audits) -> None:
    journal = AuditJournal.take(audits.root, "a")
    assert journal is not None
    await journal.begin(
        {"request": REQUEST | {"mode": "quick"}, "started_at_utc": "2026-02-01T09:00:00Z"}
    )
    journal.close()
    await audits.handle()
    assert audits.told.codes() == ["AUDIT_CONFLICT"]


async def test_a_disk_that_fails_ends_the_worker_and_reports_nothing(audits: Audits) -> None:
    (audits.root / "audits").write_bytes(b"")
    with pytest.raises(StoreError):
        await audits.handle()
    assert audits.told.messages == []


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (MemoryError("a process was killed"), MemoryError),
        (StoreError("no room for the plan"), StoreError),
        (OSError("no descriptor is left"), OSError),
        (RuntimeError("can't start new thread"), ExecutorError),
    ],
)
async def test_a_fault_of_the_machine_ends_the_worker_and_is_no_dead_letter(
    audits: Audits, monkeypatch: pytest.MonkeyPatch, fault: Exception, told: type[Exception]
) -> None:
    def run(*_: Any) -> Any:
        raise fault

    with monkeypatch.context() as patch:
        patch.setattr(StoreAudit, "run", run)
        with pytest.raises(told):
            await audits.handle()
    assert audits.told.messages == []
    await audits.handle()
    assert len(audits.told.of("reports")) == 1


async def test_our_own_fault_is_a_dead_letter_and_holds_up_nothing(
    audits: Audits, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(StoreAudit, "report", lambda *_args, **_kwargs: 1 / 0)
        await audits.handle()
    assert audits.told.codes() == ["INTERNAL_ERROR"]
    assert audits.told.of("reports") == []
    # Brought back by a program that is right, it ends as if nothing had been.
    await audits.handle(1)
    assert len(audits.told.of("reports")) == 1


async def test_a_request_that_is_cancelled_lets_go_of_its_journal(
    audits: Audits, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = threading.Event()
    counted(monkeypatch, forever=begun)
    handling = asyncio.create_task(audits.handle())
    await asyncio.to_thread(begun.wait)
    handling.cancel()
    await asyncio.wait([handling])
    assert handling.cancelled()
    journal = AuditJournal.take(audits.root, "a")
    assert journal is not None
    journal.close()


def counted(
    monkeypatch: pytest.MonkeyPatch, *, forever: threading.Event | None = None
) -> list[str]:
    """Return the audit_ids of the audits that are run from now on.

    Args:
        monkeypatch: Undoes it.
        forever: Set once an audit runs, which then never ends by itself.
    """
    runs: list[str] = []
    original = StoreAudit.run

    def run(audit: StoreAudit, skip: Any, progress: Progress, *rest: Any) -> Any:
        runs.append(audit.request.audit_id)
        if forever is not None:
            forever.set()
        while forever is not None:
            progress("files of runs", 0, 0)
        return original(audit, skip, progress, *rest)

    monkeypatch.setattr(StoreAudit, "run", run)
    return runs
