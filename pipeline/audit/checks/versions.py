"""Earlier versions of files, where a bucket keeps them: what is written once has one version.

A delete marker hides a file; a later version has replaced it. Whether its bytes are those that
were logged is found by its leaf or its name, where it is read; the first version is the evidence,
and the way back. What the store replaces or removes by design is left out: the identity, notes of
awaited blobs, tiles that are superseded.

A checkpoint is replaced by design, by one of more leaves. So the last versions are compared: an
older one that was put back has a larger one behind it. A store without versions shows it by what no
leaf explains any more: rows, files, offsets of the broker, trusted checkpoints.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from hashlib import sha256
from typing import Final

from pipeline.audit.audited_store import AuditedStore
from pipeline.audit.checks.logs import AuditedLog
from pipeline.audit.rules.finding import Finding
from pipeline.audit.steps import AuditReader, StepResult
from pipeline.core.store.files import History, Inspection
from pipeline.core.store.log_store import CHECKPOINT_FILE, LEDGER_FOLDER
from pipeline.ledger.tlog import EvidenceError
from pipeline.ledger.tlog.checkpoints import open_checkpoint
from pipeline.ledger.tlog.notes import VerifierKey
from schemas.audit_finding import AuditCode

LAST_CHECKPOINTS: Final = 100
"""Versions of a checkpoint that are compared: a log that is written has one more for each batch."""

_DIFFERS: Final[dict[str, AuditCode]] = {
    "runs": "BYTES_DIFFER",
    "attachments": "ATTACHMENT_DIFFERS",
    "quarantine": "QUARANTINE_DIFFERS",
}
_ONCE: Final = "one version: it is written once"


def check_versions(reader: AuditReader, folder: str) -> StepResult:
    """Return what was replaced or hidden in a folder of the store."""
    result, inspection = StepResult(), reader.store.inspection
    for history in inspection.histories(folder):
        if ".p/" not in history.path or not history.path.startswith(f"{LEDGER_FOLDER}/"):
            result.add(_finding(reader, inspection, history))
    return result


def _finding(reader: AuditReader, inspection: Inspection, history: History) -> Finding:
    path = history.path
    # It was there, as its marker is: whether a leaf or a file names it is found elsewhere.
    if history.is_hidden:
        found = f"a delete marker over the version {history.last or 'that is gone'}"
        return Finding("STRANGE_FILE", path, "no delete marker: nothing here is deleted", found)
    versions = f"{history.versions:,} versions, the first one {history.first}"
    if _has_first_bytes(inspection, history):
        found = f"{versions}, and the last one has its bytes"
        return Finding("STRANGE_FILE", path, _ONCE, found)
    found = f"{versions}, and the last one has other bytes"
    # Where all bytes are read, their hash has decided.
    is_read = reader.context.depth_of(path) != "names"
    code = None if is_read else _DIFFERS.get(path.partition("/")[0])
    return Finding(code or "STRANGE_FILE", path, _ONCE, found)


def _has_first_bytes(inspection: Inspection, history: History) -> bool:
    if not history.may_be_same:
        return False
    # Not by their ETags: those of a bucket with keys of its own are no hash of the bytes.
    first, last = (
        _digest(inspection.read_version(history.path, version))
        for version in (history.first, history.last)
    )
    return first == last


def _digest(pieces: Iterator[bytes]) -> bytes:
    digest = sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.digest()


def check_checkpoints(
    store: AuditedStore, logs: Sequence[AuditedLog], keys: Sequence[VerifierKey]
) -> Iterator[Finding]:
    """Yield a finding for each log whose checkpoint has taken the place of a larger one."""
    for log in logs:
        path = f"{log.path}/{CHECKPOINT_FILE}"
        versions = store.inspection.newest_versions(path, LAST_CHECKPOINTS)
        sizes = list(
            store.files.at_once(partial(_size_of_version, store, log, keys, path), versions)
        )
        if sizes and sizes[0] < (largest := max(sizes)):
            yield Finding(
                "CHECKPOINT_DIFFERS",
                path,
                f"that of {largest:,} leaves, the version {versions[sizes.index(largest)]}",
                f"an older one in its place, of {sizes[0]:,} leaves",
            )


def _size_of_version(
    store: AuditedStore, log: AuditedLog, keys: Sequence[VerifierKey], path: str, version: str
) -> int:
    """Return of how many leaves a version is; none where it is no checkpoint of the log."""
    note = b"".join(store.inspection.read_version(path, version))
    try:
        return open_checkpoint(note, keys, origin=log.log.origin(store.identity.store_id)).size
    except EvidenceError:
        return 0
