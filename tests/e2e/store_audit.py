"""What a store, its topics and its group say of each other, read without the program under test."""

import hashlib
import json
import sqlite3
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiokafka import ConsumerRecord

from pipeline.settings import Settings
from schemas.dead_letter import DeadLetterHeaders
from schemas.run_event import RunEvent
from tests.e2e.kafka_reading import Place, committed, header_dict, read_topic
from tests.e2e.log_audit import LogAudit, audit_logs

BROKER_LIMIT_BYTES = 5 * 1024 * 1024


@dataclass(slots=True)
class StoreAudit:
    """All that was sent, stored, told and committed, and what of it does not agree.

    Attributes:
        requests: Every record of the request topic.
        events: Every delivery of an event, by the record that it is about.
        letters: Every delivery of a dead letter, by the record that it is.
        files: Every file of the store but the index, by its relative path.
        rows: The index, by run_id.
        committed: Where the group stands in each partition.
        lost: Records without trace, or whose trace leads nowhere.
        doubled: Runs stored or persisted twice, and deliveries of one event that differ.
        torn: Files that are not what their name, row or form says.
        acknowledged_and_missing: The part of `lost` below the committed offsets.
        leaves: What the logs say of each record.
        unlogged: What is wrong with the logs: acknowledged records without a leaf, leaves that
            say something else than the event, logs that are not whole.
    """

    requests: list[ConsumerRecord]
    events: dict[Place, list[ConsumerRecord]]
    letters: dict[Place, list[ConsumerRecord]]
    files: dict[str, bytes]
    rows: dict[str, sqlite3.Row]
    committed: dict[int, int]
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)
    acknowledged_and_missing: list[str] = field(default_factory=list)
    leaves: dict[Place, dict[str, Any]] = field(default_factory=dict)
    unlogged: list[str] = field(default_factory=list)

    def event(self, place: Place) -> dict[str, Any]:
        """Return the one event about a record, whatever the number of its deliveries."""
        values = {each.value for each in self.events.get(place, [])}
        assert len(values) == 1, f"{place}: {len(values)} different events"
        event: dict[str, Any] = json.loads(values.pop())
        return event

    def letter(self, place: Place) -> ConsumerRecord:
        return self.letters[place][0]

    def outcomes(self) -> Counter[str]:
        """Return how many records have each outcome, rejected ones by their code."""
        events = (self.event(place) for place in self.events)
        return Counter(
            event["error"]["code"] if event["outcome"] == "rejected" else event["outcome"]
            for event in events
        )

    def artifacts(self) -> dict[str, bytes]:
        return {path: data for path, data in self.files.items() if path.startswith("runs/")}

    def assert_whole(self) -> None:
        """Fail where anything is lost, doubled, torn, unlogged, or acknowledged and missing."""
        findings = {
            "lost": self.lost,
            "doubled": self.doubled,
            "torn": self.torn,
            "acknowledged_and_missing": self.acknowledged_and_missing,
            "unlogged": self.unlogged,
        }
        counted = {name: (len(found), found[:3]) for name, found in findings.items() if found}
        assert not counted, counted


async def audit_store(settings: Settings) -> StoreAudit:
    """Read everything, then compare."""
    # The group's offsets first: what is acknowledged now must be there when we look.
    offsets = await committed(settings)
    topics = settings.topics
    audit = StoreAudit(
        await read_topic(settings, topics.run_requests),
        _by_event_source(await read_topic(settings, topics.run_events)),
        _by_letter_source(await read_topic(settings, topics.run_dead_letters)),
        store_files(settings.data_dir),
        index_rows(settings.data_dir),
        offsets,
    )
    _check_records(audit)
    _check_deliveries(audit)
    _check_runs(audit)
    _check_files(audit)
    if settings.ledger_enabled:
        _check_leaves(audit, audit_logs(settings, topics.run_requests))
    return audit


def store_files(root: Path) -> dict[str, bytes]:
    """Return the files that are the store's content: those below its folders."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for area in ("runs", "attachments", "quarantine")
        for path in sorted((root / area).rglob("*"))
        if not path.is_dir()
    }


def index_rows(root: Path) -> dict[str, sqlite3.Row]:
    path = root / "index.sqlite3"
    if not path.exists():
        return {}
    connection = sqlite3.connect(path)
    try:
        connection.row_factory = sqlite3.Row
        return {row["run_id"]: row for row in connection.execute("SELECT * FROM runs")}
    finally:
        connection.close()


def _by_event_source(events: list[ConsumerRecord]) -> dict[Place, list[ConsumerRecord]]:
    found: dict[Place, list[ConsumerRecord]] = {}
    for each in events:
        source = RunEvent.model_validate_json(each.value).source
        found.setdefault(Place(source.partition, source.offset), []).append(each)
    return found


def _by_letter_source(letters: list[ConsumerRecord]) -> dict[Place, list[ConsumerRecord]]:
    found: dict[Place, list[ConsumerRecord]] = {}
    for each in letters:
        ours = {
            name: value.decode()
            for name, value in header_dict(each).items()
            if value is not None and name.startswith("rmos-")
        }
        headers = DeadLetterHeaders.model_validate(ours)
        place = Place(int(headers.source_partition), int(headers.source_offset))
        found.setdefault(place, []).append(each)
    return found


def _check_records(audit: StoreAudit) -> None:
    known = {Place(each.partition, each.offset) for each in audit.requests}
    for request in audit.requests:
        place = Place(request.partition, request.offset)
        fault = _missing_trace(audit, place, request)
        if fault:
            audit.lost.append(f"{place}: {fault}")
            if place.offset < audit.committed.get(place.partition, 0):
                audit.acknowledged_and_missing.append(f"{place}: {fault}")
    audit.doubled += [
        f"{place}: traced and never sent" for place in {*audit.events, *audit.letters} - known
    ]


def _missing_trace(audit: StoreAudit, place: Place, request: ConsumerRecord) -> str | None:
    if place not in audit.events:
        return "no event"
    event = json.loads(audit.events[place][0].value)
    if "error" in event:
        return _missing_dead_letter(audit.letters.get(place, []), request)
    content = audit.files.get(event["artifact_path"])
    if content is None:
        return f"no file {event['artifact_path']}"
    if sha256(content) != event["artifact_sha256"]:
        return f"another file {event['artifact_path']}"
    row = audit.rows.get(event["run_id"])
    if row is None or row["artifact_sha256"] != event["artifact_sha256"]:
        return f"no row of {event['run_id']}"
    return None


def _missing_dead_letter(letters: list[ConsumerRecord], request: ConsumerRecord) -> str | None:
    if not letters:
        return "no dead letter"
    letter = letters[0]
    value = request.value
    carried = value if value is None or len(value) <= BROKER_LIMIT_BYTES else None
    own_headers = tuple(letter.headers[: len(request.headers)])
    if (letter.key, letter.value, own_headers) != (request.key, carried, tuple(request.headers)):
        return "a dead letter that is not the record"
    return None


def _check_deliveries(audit: StoreAudit) -> None:
    for name, deliveries in (("event", audit.events), ("dead letter", audit.letters)):
        for place, each in deliveries.items():
            forms = {(d.partition, d.key, d.value, tuple(d.headers)) for d in each}
            if len(forms) > 1:
                audit.doubled.append(f"{place}: {len(forms)} different deliveries of one {name}")
    audit.doubled += [
        f"{place}: a dead letter of a good record"
        for place in audit.letters
        if place in audit.events and b'"error"' not in (audit.events[place][0].value or b"")
    ]


def _check_runs(audit: StoreAudit) -> None:
    makers = Counter(
        event["run_id"]
        for event in map(audit.event, audit.events)
        if event["outcome"] == "persisted"
    )
    audit.doubled += [
        f"{run_id}: persisted by {n} records" for run_id, n in makers.items() if n > 1
    ]
    names = Counter(path.rpartition("/")[2] for path in audit.artifacts())
    audit.doubled += [f"{name}: {n} files" for name, n in names.items() if n > 1]
    paths = {row["artifact_path"] for row in audit.rows.values()}
    audit.torn += [f"{path}: a file without a row" for path in audit.artifacts().keys() - paths]
    audit.lost += [f"{path}: a row without a file" for path in paths - audit.artifacts().keys()]
    made = set(makers)
    audit.lost += [f"{run_id}: stored, never told" for run_id in audit.rows.keys() - made]


_LEAF_KINDS = {"persisted": "run"}


def _check_leaves(audit: StoreAudit, logs: LogAudit) -> None:
    audit.leaves, audit.unlogged = logs.leaves, logs.faults
    requests = {Place(each.partition, each.offset): each for each in audit.requests}
    audit.unlogged += [f"{place}: a leaf and no record" for place in logs.leaves.keys() - requests]
    for place, request in requests.items():
        leaf = logs.leaves.get(place)
        if leaf is None:
            if place.offset < audit.committed.get(place.partition, 0):
                audit.unlogged.append(f"{place}: acknowledged, without a leaf")
            continue
        if leaf["body_sha256"] != sha256(request.value or b""):
            audit.unlogged.append(f"{place}: the leaf of another body")
        if place in audit.events and leaf != leaf | _told(audit.event(place)):
            audit.unlogged.append(f"{place}: told otherwise than its leaf says")


def _told(event: dict[str, Any]) -> dict[str, Any]:
    """Return what the leaf of a record must say where its event says this."""
    if event.get("error", {}).get("code") == "ARTIFACT_CORRUPT":
        return {}
    told = {"kind": _LEAF_KINDS.get(event["outcome"], event["outcome"])}
    if "error" in event:
        return told | {"code": event["error"]["code"]}
    return told | {
        "run_id": event["run_id"],
        "path": event["artifact_path"],
        "sha256": event["artifact_sha256"],
    }


def _check_files(audit: StoreAudit) -> None:
    sha256_by_path = {row["artifact_path"]: row["artifact_sha256"] for row in audit.rows.values()}
    for path, content in audit.files.items():
        if path.startswith("runs/"):
            whole = _is_artifact(content) and sha256(content) == sha256_by_path.get(path)
        else:
            whole = path.endswith(f"/{sha256(content)}")
        if not whole:
            audit.torn.append(path)


def _is_artifact(content: bytes) -> bool:
    try:
        document = json.loads(content)
    except ValueError:
        return False
    return bool(document.get("schema_version") == "rmos.run_artifact/2")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
