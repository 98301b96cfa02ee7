"""The page of the ledger: each log at its signed checkpoint, the keys, and the file to hand out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from pipeline.api.answers import ApiError
from pipeline.api.dependencies import ApiDependencies, ApiDeps
from pipeline.audit.journal import read_report
from pipeline.audit.kept import AuditFile, audit_files
from pipeline.core.store.identity import read_identity
from pipeline.errors import IntegrityError, StoreNotReadyError
from pipeline.ledger.log_id import LogId
from pipeline.ledger.reader import StoreLogs
from pipeline.ledger.tlog.checkpoints import write_trusted
from pipeline.ledger.tlog.notes import VerifierKey, parse_note, verify_note
from pipeline.page.audits import audit_view
from pipeline.page.rendering import moment_of, page
from pipeline.page.route import PageRoute
from pipeline.storage.ledger_key import open_store_logs

router = APIRouter(route_class=PageRoute)

_LOOKED_BACK = 20
"""So many of the last audits are asked for a store root."""


@dataclass(frozen=True, slots=True)
class LogView:
    """A log as the page shows it.

    Attributes:
        size: Its leaves, by the checkpoint.
        root: Of its Merkle tree, 64 digits.
        key_id: Of the key that signed the checkpoint.
        last_at: The broker's time of the record of the last leaf, which the root covers.
        fault: What is wrong with it; then nothing else of it is shown.
    """

    log: LogId
    size: int = 0
    root: str = ""
    key_id: str = ""
    last_at: datetime | None = None
    fault: str | None = None


@router.get("/ledger")
async def show_ledger(request: Request, deps: ApiDeps) -> Response:
    """Return the page; every signature on it was checked for it."""
    return await deps.transfer(_page, request, deps)


@router.get("/ledger/checkpoint")
async def download_checkpoint(deps: ApiDeps) -> Response:
    """Return what `rmos ledger checkpoint` prints: the checkpoints of all logs, to hand out."""
    return await deps.transfer(_checkpoint, deps)


def _page(request: Request, deps: ApiDependencies) -> Response:
    store_id, unchecked = read_identity(deps.reader.store.files).store_id, None
    try:
        logs = open_store_logs(deps.settings, deps.reader.store)
        view = ledger_view(store_id, logs.keys, [log_view(logs, log) for log in logs.ids()])
    except StoreNotReadyError:
        # Its text names a path of the server.
        unchecked = "This server does not have the public key of the ledger."
        view = ledger_view(store_id, [], [])
    last, rooted = _last_audits(deps)
    return page(
        request,
        "ledger.html",
        unchecked=unchecked,
        last_audit=last,
        rooted_audit=rooted,
        last_audit_view=last and audit_view(last["audit_id"], last, None),
        **view,
    )


def ledger_view(
    store_id: str, keys: Sequence[VerifierKey], logs: Sequence[LogView]
) -> dict[str, Any]:
    """Return what the page shows of the logs of a store and of the keys, that in force first."""
    return {
        "store_id": store_id,
        "keys": [(str(key), key.key_id.hex()) for key in keys],
        "logs": [log for log in logs if log.fault is None and log.size],
        "empty": sum(log.fault is None and not log.size for log in logs),
        "damaged": [log for log in logs if log.fault is not None],
        "leaves": sum(log.size for log in logs),
    }


def log_view(logs: StoreLogs, log: LogId) -> LogView:
    """Return a log as its signed checkpoint has it, its last leaf checked against the root."""
    try:
        reader = logs.open(log)
        signed = verify_note(parse_note(reader.note), logs.keys)
        return LogView(
            log,
            size=reader.size,
            root=reader.checkpoint.root.hex(),
            key_id=signed[0].key_id.hex(),
            last_at=moment_of(reader.leaf(reader.size - 1).timestamp_ms) if reader.size else None,
        )
    except IntegrityError as error:
        return LogView(log, fault=str(error))


def _last_audits(deps: ApiDependencies) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Return the report of the last audit, and of the last one that computed the store root."""
    last = None
    for report in _reports(deps, audit_files(deps.reader.store.files)):
        last = last or report
        if report.get("store_root"):
            return last, report
    return last, None


def _reports(deps: ApiDependencies, files: Sequence[AuditFile]) -> Iterator[dict[str, Any]]:
    for file in [each for each in files if each.is_done][:_LOOKED_BACK]:
        try:
            found = read_report(deps.reader.store.files, file.audit_id)
        except IntegrityError:
            # The page of the audits names it.
            continue
        if found is not None:
            yield found[0]


def _checkpoint(deps: ApiDependencies) -> Response:
    logs = open_store_logs(deps.settings, deps.reader.store)
    notes = [reader.note for reader in logs.open_all()]
    if not notes:
        raise ApiError(404, "NOT_FOUND", "The store has no log yet: there is nothing to hand out.")
    name = f"checkpoints-{logs.store_id[:12]}-{datetime.now(UTC):%Y-%m-%dT%H%MZ}.txt"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(write_trusted(notes), headers=headers, media_type="text/plain; charset=utf-8")
