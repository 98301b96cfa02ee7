"""A store with runs, links, attachments and a ledger over them, to be proved to outsiders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.core.advisories.verdict import judge_advisory_record
from pipeline.core.record import RecordId, RecordSource
from pipeline.core.runs.verdict import judge_run_record
from pipeline.disk.contents import disk_contents
from pipeline.disk.log_store import open_to_write
from pipeline.ledger.reader import StoreLogs
from pipeline.ledger.tlog.notes import NoteSigner
from pipeline.ledger.writer import Ledger
from pipeline.storage.advisory_store import AdvisoryStore
from pipeline.storage.batch_plan import JudgedRecord
from pipeline.storage.run_store import RunStore
from pipeline.storage.store import open_store_to_write
from tests.builders import (
    advisory_request,
    attachment,
    attachment_ref,
    record,
    red_request,
    rosette_request,
    router_request,
    run_request,
    sha256,
)
from tests.ledger.ledgers import KEYS, SIGNER, STORE_ID
from tests.storage.stores import TIMESTAMP_MS, make_store

RUNS = "rmos.runs.requests"
ADVISORIES = "rmos.advisories.requests"
SHARED = b"0\nSECTION\n"
UPLOADED = b"uploaded beside the topic"

REQUESTS = [
    (0, run_request(run_id="saw_1", attachments=[attachment(SHARED)])),
    (0, red_request(run_id="saw_red", created_at_utc="2025-12-19T00:00:00Z")),
    (1, router_request(run_id="router_1", attachments=[attachment(SHARED)])),
    (
        2,
        rosette_request(
            run_id="rosette_1",
            attachments=[attachment_ref(UPLOADED, kind="geometry", filename="part.geo")],
        ),
    ),
    (0, run_request(run_id="saw_1", attachments=[attachment(SHARED)])),
    (0, run_request(run_id="saw_1", notes="another request")),
]
"""Partition and request, in the order of their offsets within it."""

LINKED = [
    (0, advisory_request(run_id="saw_1", advisory_id="adv_1")),
    (0, advisory_request(run_id="saw_red", advisory_id="adv_2", content_text="Too fast.")),
    (0, advisory_request(run_id="saw_1", advisory_id="adv_3", kind="note", title="<b>&amp;")),
    (0, advisory_request(run_id="never_came", advisory_id="adv_1")),
    (0, advisory_request(run_id="saw_1", advisory_id="adv_1")),
]


def proven_store(
    root: Path,
    *,
    requests: Sequence[tuple[int, dict[str, Any]]] = REQUESTS,
    advisories: Sequence[tuple[int, dict[str, Any]]] = LINKED,
    signers: Sequence[NoteSigner] = (SIGNER,),
    size: int = 100,
) -> Path:
    """Make a store at `root`; `size` records make a batch."""
    make_store(root)
    go_on(root, requests=requests, advisories=advisories, signers=signers, size=size)
    return root


def go_on(
    root: Path,
    *,
    requests: Sequence[tuple[int, dict[str, Any]]] = (),
    advisories: Sequence[tuple[int, dict[str, Any]]] = (),
    signers: Sequence[NoteSigner] = (SIGNER,),
    size: int = 100,
    start: int = 0,
) -> None:
    """Store requests, then advisories, from offset `start` of each partition on."""
    ledger = Ledger(*open_to_write(root), STORE_ID, signers)
    for topic, kind, given in (
        (RUNS, RunStore, requests),
        (ADVISORIES, AdvisoryStore, advisories),
    ):
        store = kind(open_store_to_write(root), ledger=ledger)
        records = judged(topic, given, start)
        for first in range(0, len(records), size):
            store.commit(records[first : first + size])
        store.close()


def judged(topic: str, given: Sequence[tuple[int, dict[str, Any]]], start: int) -> list[Any]:
    next_offsets: dict[int, int] = {}
    records = []
    for partition, request in given:
        offset = next_offsets.get(partition, start)
        next_offsets[partition] = offset + 1
        key, value = record(request)
        judge = judge_run_record if topic == RUNS else judge_advisory_record
        place = RecordSource(1, RecordId(topic, partition, offset))
        records.append(JudgedRecord.of(place, judge(key, value), value, TIMESTAMP_MS))
    return records


def upload(root: Path, content: bytes = UPLOADED) -> Path:
    """Put a blob where an upload puts it; return its path."""
    digest = sha256(content)
    path = root / f"attachments/{digest[:2]}/{digest[2:4]}/{digest}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def logs(root: Path) -> StoreLogs:
    """Open the logs of the store."""
    return StoreLogs(disk_contents(root), KEYS)


def change(path: Path, old: bytes, new: bytes) -> None:
    """Change a file behind the program's back."""
    content = path.read_bytes()
    assert old in content
    path.chmod(0o644)
    path.write_bytes(content.replace(old, new))
