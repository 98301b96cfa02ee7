"""One audit request, from its record to its report or its dead letter.

1. A record that is no audit request is a dead letter.
2. Where the report is there, it is published again; of another request under the same audit_id the
   record is a dead letter.
3. Where another process has locked the journal, it does this very audit: wait, and look again.
4. Else the store is audited, from where the journal ends.
5. The report is written, once and durably, then published.

Where audits are cut into parts, a request for the whole store is answered in 2, or by publishing
a request for each part. The report of a part is not published: where those of all parts are there,
the report of the whole is written, once, and published.

Only then may the offset be committed. After a fault of the broker, a bucket or a database the
record is retried; finished parts of an audit are not repeated.
"""

import asyncio
from contextlib import suppress
from functools import partial
from typing import Any

import structlog
from pydantic import ValidationError

from pipeline import metrics
from pipeline.audit.journal import (
    AuditJournal,
    Journals,
    has_report,
    read_report,
    write_report,
)
from pipeline.audit.kept import join_parts
from pipeline.audit.rules.finding import (
    FINDING_EVENT_TYPE,
    REPORT_EVENT_TYPE,
    audit_event_headers,
    worst_severity,
)
from pipeline.audit.rules.parts import AuditPart, whole_id
from pipeline.audit.rules.request import (
    AUDIT_CONFLICT,
    AUDIT_FAILED,
    REPORT_CORRUPT,
    judge_audit_record,
    normalised_request,
)
from pipeline.audit.worker.run import Auditing, AuditRun
from pipeline.broker.sending.batches import BatchSender, Message
from pipeline.consumers.engine.batches import Record
from pipeline.consumers.engine.outbox import Outbox, Request, request_of
from pipeline.consumers.engine.readiness import Backoff, PutOff, Standing
from pipeline.core.envelope import Rejected, RejectionError
from pipeline.core.json.canonical import canonical_json
from pipeline.core.store.files import ReadableFiles
from pipeline.errors import (
    BrokerError,
    IntegrityError,
    RmosError,
    StoreAwayError,
    thread_faults,
)
from schemas.audit_request import AuditRequest
from schemas.timestamps import parse_timestamp

_log = structlog.get_logger(__name__)


class AuditHandler:
    """Handles audit requests, one at a time.

    Attributes:
        standing: Why the worker is not ready although it polls.
    """

    def __init__(self, auditing: Auditing, sender: BatchSender, backoff: Backoff) -> None:
        """Prepare; nothing is sent yet.

        Args:
            auditing: What every audit needs.
            sender: Where findings, reports and dead letters go.
            backoff: How to wait, for the broker or for another process.
        """
        topics = auditing.settings.topics
        self._auditing = auditing
        self._journals = Journals.of(auditing.settings, auditing.store.files)
        self._sender = sender
        self._backoff = backoff
        self._group = topics.audit_group
        self.standing = Standing(self._group)
        self._put_off = PutOff(self.standing)
        self._outboxes = {
            kind: Outbox(self._group, topic, topics.audit_dead_letters)
            for kind, topic in (
                (FINDING_EVENT_TYPE, topics.audit_findings),
                (REPORT_EVENT_TYPE, topics.audit_reports),
            )
        }

    async def handle(self, record: Record) -> None:
        """Do what a record requests; return when the broker has confirmed all that is published.

        Raises:
            StoreError: The disk failed.
            MemoryError: A process was killed, as the kernel does where memory is short.
        """
        incoming = request_of(record, self._auditing.store.identity.epoch)
        # In a thread: a large one takes a second, in which the loop must poll.
        verdict = await asyncio.to_thread(judge_audit_record, incoming.key, incoming.value)
        try:
            while True:
                try:
                    outcome = await self._handled(incoming, verdict)
                except (BrokerError, StoreAwayError) as error:
                    await self._rest(incoming, error)
                else:
                    metrics.RECORDS.labels(self._group, outcome).inc()
                    return
        finally:
            # Also where it was given up to another worker.
            self._put_off.forget_all()

    async def _handled(self, incoming: Request, verdict: AuditRequest | Rejected) -> str:
        """Return what became of the record, in one word."""
        if isinstance(verdict, Rejected):
            return await self._refuse(incoming, verdict)
        try:
            with thread_faults():
                content, outcome = await self._answer(incoming, verdict)
        except RejectionError as error:
            return await self._refuse(incoming, error.rejected)
        except IntegrityError as error:
            return await self._refuse(incoming, Rejected(REPORT_CORRUPT, str(error)))
        except (OSError, MemoryError, RmosError):
            raise
        except Exception as error:  # noqa: BLE001  # one request must not hold up the others
            _log.exception("audit failed", audit_id=verdict.audit_id)
            failed = Rejected(AUDIT_FAILED, f"{type(error).__name__} while auditing.")
            return await self._refuse(incoming, failed)
        if content is not None:
            await self._publish(REPORT_EVENT_TYPE, incoming, whole_id(verdict), [content])
        done = "audit handled" if content is None else "audit reported"
        _log.info(done, audit_id=verdict.audit_id, outcome=outcome)
        return outcome

    async def _answer(self, incoming: Request, request: AuditRequest) -> tuple[bytes | None, str]:
        """Return the bytes of the report, if there is one by now, and what became of the record."""
        part = AuditPart.of(request)
        if part is not None:
            await self._audited(incoming, request)
            return await asyncio.to_thread(self._sum, request, part), "audited"
        if not (parts := self._parts(request)):
            return await self._audited(incoming, request)
        content = await self._stored(request)
        if content is not None:
            return content, "reported again"
        asked = await asyncio.to_thread(self._not_done, parts)
        await self._send(incoming, [self._asking(request, each) for each in asked])
        return None, "divided"

    def _parts(self, request: AuditRequest) -> list[AuditPart]:
        count = self._auditing.settings.audit_parts
        if count == 1 or request.scope.all is None:
            return []
        return AuditPart.all_of(request.audit_id, count)

    def _not_done(self, parts: list[AuditPart]) -> list[AuditPart]:
        """Return the parts that have no report; where each has one, one that makes the sum."""
        files = self._auditing.store.files
        return [each for each in parts if not has_report(files, each.audit_id)] or parts[:1]

    def _asking(self, request: AuditRequest, part: AuditPart) -> Message:
        of_part = request.model_copy(update={"audit_id": part.audit_id})
        value = canonical_json(of_part.model_dump(exclude_none=True))
        # By its number: keys of a few parts may all have one partition.
        topic = self._auditing.settings.topics.audit_requests
        return Message(topic, part.number, part.audit_id.encode(), value)

    def _sum(self, request: AuditRequest, part: AuditPart) -> bytes | None:
        """Return the report of the whole, written once all of its parts have one."""
        files = self._auditing.store.files
        found = _read_report(files, request, part.whole)
        if found is None:
            parts = AuditPart.all_of(part.whole, part.count)
            of_parts = [_read_report(files, request, each.audit_id) for each in parts]
            reports = [each[0] for each in of_parts if each is not None]
            if len(reports) < len(parts):
                return None
            report = join_parts(files, parts, reports)
            found = report, write_report(files, report)
            self._measure(report)
        return found[1]

    async def _audited(self, incoming: Request, request: AuditRequest) -> tuple[bytes, str]:
        """Return the bytes of the report of an audit that is done here."""
        while True:
            content = await self._stored(request)  # 2.
            if content is not None:
                return content, "reported again"
            journal = await asyncio.to_thread(self._journals.take, request.audit_id)
            if journal is not None:
                break
            await self._backoff.rest()  # 3.
        try:
            # It may have been done between the two looks.
            content = await self._stored(request)
            if content is not None:
                return content, "reported again"
            return await self._audit(incoming, request, journal), "audited"
        except IntegrityError:
            # A journal keeps no other host from the same audit: of two reports one was first.
            with suppress(IntegrityError):
                content = await self._stored(request)
            if content is None:
                raise
            return content, "reported again"
        finally:
            journal.close()

    async def _stored(self, request: AuditRequest) -> bytes | None:
        auditing = self._auditing
        audit_id = request.audit_id
        found = await asyncio.to_thread(_read_report, auditing.store.files, request, audit_id)
        if found is None:
            return None
        await asyncio.to_thread(self._journals.end, audit_id)
        return found[1]

    async def _audit(
        self, incoming: Request, request: AuditRequest, journal: AuditJournal
    ) -> bytes:
        auditing, begun = self._auditing, journal.state.begun
        if begun is None:
            begun = {
                "request": request.model_dump(exclude_none=True),
                "started_at_utc": auditing.now(),
            }
            await journal.begin(begun)
        else:
            _check_is_of(request, begun.get("request"))
        _log.info("audit begun", audit_id=request.audit_id, mode=request.mode)
        is_part = AuditPart.of(request) is not None
        publish = partial(self._publish, FINDING_EVENT_TYPE, incoming, whole_id(request))
        report = await AuditRun(auditing, request, journal, publish).report()  # 4.
        if is_part and self._journals.becoming is not None:
            # The findings first: the sum is of them.
            await asyncio.to_thread(self._journals.end, request.audit_id)
        content = await asyncio.to_thread(write_report, auditing.store.files, report)  # 5.
        await asyncio.to_thread(self._journals.end, request.audit_id)
        if not is_part:
            self._measure(report)
        return content

    def _measure(self, report: dict[str, Any]) -> None:
        mode = report["mode"]
        began, ended = (parse_timestamp(report[f"{end}_at_utc"]) for end in ("started", "finished"))
        for verdict, ruling in report["verdicts"].items():
            metrics.AUDITS.labels(mode, verdict, ruling["result"]).inc()
        metrics.AUDIT_SECONDS.labels(mode).set((ended - began).total_seconds())
        if worst_severity(report["codes"]) != "error":
            metrics.LAST_CLEAN_AUDIT.labels(mode).set(self._auditing.clock().timestamp())

    async def _publish(
        self, kind: str, incoming: Request, audit_id: str, values: list[bytes]
    ) -> None:
        event = partial(self._outboxes[kind].event, incoming, audit_id)
        headers = partial(audit_event_headers, kind, audit_id, timestamp_ms=incoming.timestamp_ms)
        await self._send(incoming, [event(value, headers(value)) for value in values])

    async def _send(self, incoming: Request, messages: list[Message]) -> None:
        """Send `messages`, and retry until the broker has them: an audit may take hours."""
        while True:
            try:
                await self._sender.send(messages)
            except BrokerError as error:
                await self._rest(incoming, error)
            else:
                self._put_off.forget([incoming.source.id])
                return

    async def _rest(self, incoming: Request, error: BrokerError | StoreAwayError) -> None:
        cause = "broker" if isinstance(error, BrokerError) else "store"
        metrics.FAULTS.labels(self._group, cause).inc()
        _log.warning("audit put off", why=str(error))
        self._put_off.note([incoming.source.id], str(error))
        await self._backoff.rest()

    async def _refuse(self, incoming: Request, rejected: Rejected) -> str:
        letter = self._outboxes[REPORT_EVENT_TYPE].dead_letter(
            incoming, rejected.code, rejected.message
        )
        await self._send(incoming, [letter])
        metrics.DEAD_LETTERS.labels(self._group, rejected.code).inc()
        _log.warning("audit refused", code=rejected.code, offset=incoming.source.id.offset)
        return "conflict" if rejected.code == AUDIT_CONFLICT else "rejected"


def _read_report(
    files: ReadableFiles, request: AuditRequest, audit_id: str
) -> tuple[dict[str, Any], bytes] | None:
    """Return the report of an audit of what `request` asks for, and its bytes, if there is one.

    Raises:
        RejectionError: It is that of another request.
    """
    found = read_report(files, audit_id)
    if found is not None:
        _check_is_of(request.model_copy(update={"audit_id": audit_id}), found[0])
    return found


def _check_is_of(request: AuditRequest, document: Any) -> None:  # noqa: ANN401
    """Check that a journal or a report is that of `request`.

    Raises:
        RejectionError: It is that of another request under the same audit_id.
    """
    try:
        asked = {name: document[name] for name in ("audit_id", "scope", "mode")}
        if normalised_request(asked) == request:
            return
    except (KeyError, TypeError, ValidationError):
        pass
    raise RejectionError(
        AUDIT_CONFLICT,
        f"Expected the request that the audit {request.audit_id} was begun with, found another "
        "scope or mode. Another audit needs another audit_id.",
    )
