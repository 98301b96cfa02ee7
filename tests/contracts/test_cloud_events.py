"""The CloudEvents SDK reads every event that we publish: Kafka protocol binding, binary mode."""

import json
from datetime import datetime
from typing import Any

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_kafka_event, to_binary_event
from cloudevents.core.exceptions import CloudEventValidationError

from schemas.advisory_event import AdvisoryEvent
from schemas.audit_finding import AuditFinding
from schemas.audit_report import AuditReport
from schemas.fields import Frozen
from schemas.run_event import RunEvent
from tests.contracts.golden_events import FILE, file_text

KEPT: dict[str, dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))
SHAPES: dict[str, type[Frozen]] = {
    "rmos.run": RunEvent,
    "rmos.advisory": AdvisoryEvent,
    "rmos.audit.finding": AuditFinding,
    "rmos.audit.report": AuditReport,
}


def message(kept: dict[str, Any]) -> KafkaMessage:
    headers = {name: value.encode() for name, value in kept["headers"].items()}
    key = None if kept["key"] is None else kept["key"].encode()
    return KafkaMessage(headers, key, kept["value"].encode())


def test_events_have_the_bytes_that_they_had() -> None:
    assert file_text() == FILE.read_text(encoding="utf-8")


def test_every_outcome_is_among_them() -> None:
    outcomes = {tuple(each["headers"]["ce_type"].split(".")[1:3]) for each in KEPT.values()}
    runs = {"persisted", "duplicate", "conflict", "rejected"}
    advisories = {"linked", "duplicate", "conflict", "rejected", "waiting"}
    assert outcomes == (
        {("run", outcome) for outcome in runs}
        | {("advisory", outcome) for outcome in advisories}
        | {("audit", "finding"), ("audit", "report")}
    )


@pytest.mark.parametrize("name", KEPT)
def test_the_sdk_reads_an_event_with_all_of_its_attributes(name: str) -> None:
    kept = KEPT[name]
    event = from_kafka_event(message(kept))
    headers = kept["headers"]
    assert event.get_specversion() == "1.0"
    assert event.get_id() == headers["ce_id"]
    assert event.get_source() == headers["ce_source"]
    assert event.get_type() == headers["ce_type"]
    assert event.get_subject() == headers.get("ce_subject")
    assert event.get_time() == datetime.fromisoformat("2025-12-18T14:03:22.123+00:00")
    assert event.get_datacontenttype() == "application/json"
    # The SDK takes the record's key for the extension of that name.
    assert event.get_extension("partitionkey") == kept["key"]
    assert event.get_data() == json.loads(kept["value"])
    kind = headers["ce_type"].removesuffix(".v1")
    shape = SHAPES.get(kind) or SHAPES[kind.rpartition(".")[0]]
    shape.model_validate(event.get_data())


@pytest.mark.parametrize("name", KEPT)
def test_the_sdk_writes_an_event_with_the_headers_that_we_write(name: str) -> None:
    event = from_kafka_event(message(KEPT[name]))
    again = to_binary_event(event)
    ours = dict(message(KEPT[name]).headers)
    ours.pop("traceparent", None)  # W3C's own header of Kafka; no attribute of the event
    theirs = dict(again.headers)
    theirs.pop("ce_partitionkey", None)
    assert theirs == ours
    assert again.key == KEPT[name]["key"]


# Where id or specversion is missing the SDK makes one up.
@pytest.mark.parametrize("missing", ["ce_source", "ce_type"])
def test_the_sdk_refuses_an_event_without_a_required_attribute(missing: str) -> None:
    kept = KEPT["run persisted"]
    headers = {name: value for name, value in kept["headers"].items() if name != missing}
    with pytest.raises(CloudEventValidationError, match=missing.removeprefix("ce_")):
        from_kafka_event(message(kept | {"headers": headers}))
