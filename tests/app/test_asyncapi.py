"""The AsyncAPI document describes every topic, and every reference in it leads somewhere."""

import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from faststream.specification.asyncapi.v3_0_0.schema.schema import ApplicationSchema

from pipeline.app.asyncapi import asyncapi_document
from pipeline.core.advisories.outcome import AdvisoryOutcome, advisory_event_headers
from pipeline.core.dead_letters.letter import dead_letter
from pipeline.core.record import RecordId, RecordSource
from pipeline.core.runs.event import run_event_headers
from pipeline.core.runs.outcome import Outcome
from pipeline.settings import Settings
from pipeline.topics import topic_table
from tests.builders import advisory_request, rosette_request, router_request, run_request

DOCUMENT = asyncapi_document(Settings())
SOURCE = RecordSource(1, RecordId("rmos.runs.requests", 3, 17))


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for child in node.values():
            yield from references(child)
    elif isinstance(node, list):
        for child in node:
            yield from references(child)


def resolved(reference: str) -> Any:
    assert reference.startswith("#/"), reference
    node: Any = DOCUMENT
    for name in reference[2:].split("/"):
        node = node[name]
    return resolved(node["$ref"]) if isinstance(node, dict) and "$ref" in node else node


def schema_of(message: str, part: str) -> dict[str, Any]:
    """Return the schema of a message, closed over its references."""
    schema: dict[str, Any] = DOCUMENT["components"]["messages"][message][part]
    return {**schema, "components": DOCUMENT["components"]}


def test_version_and_parts_are_those_of_asyncapi_3() -> None:
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert {"info", "channels", "operations", "components"} <= DOCUMENT.keys()
    assert {"title", "version"} <= DOCUMENT["info"].keys()
    # The parser of FastStream's own documents; it refuses parts that are missing or misnamed, and
    # a server without a pathname, which AsyncAPI does not ask for.
    parsed = ApplicationSchema.model_validate(DOCUMENT | {"servers": {}})
    assert len(parsed.channels) == len(topic_table())


def test_the_name_of_an_operation_makes_the_name_of_a_method() -> None:
    for name in DOCUMENT["operations"]:
        assert name.isidentifier()


def test_a_local_broker_asks_for_no_login() -> None:
    assert DOCUMENT["servers"] == {"broker_1": {"host": "127.0.0.1:9092", "protocol": "kafka"}}
    schemes = DOCUMENT["components"]["securitySchemes"]
    assert set(schemes) == {"plain", "scramSha256", "scramSha512"}


def test_names_of_components_are_of_the_pattern() -> None:
    for kind in ("messages", "schemas", "securitySchemes"):
        for name in DOCUMENT["components"][kind]:
            assert re.fullmatch(r"[A-Za-z0-9._-]+", name)


def test_every_reference_leads_somewhere() -> None:
    found = list(references(DOCUMENT))
    assert len(found) > len(topic_table())
    for reference in found:
        assert resolved(reference)


def test_every_topic_is_a_channel_with_its_bindings() -> None:
    document = asyncapi_document(Settings(prefix="shop", replication=3, request_retention_ms=5))
    channels = {each["address"]: each for each in document["channels"].values()}
    table = topic_table("shop", replication=3, request_retention_ms=5)
    assert list(channels) == [topic.name for topic in table]
    for topic in table:
        binding = channels[topic.name]["bindings"]["kafka"]
        assert binding["topic"] == topic.name
        assert (binding["partitions"], binding["replicas"]) == (topic.partitions, 3)
        written = binding["topicConfiguration"]
        assert written.pop("cleanup.policy") == ["delete"]
        assert {name: str(value) for name, value in written.items()} == {
            name: text for name, text in topic.configs.items() if name != "cleanup.policy"
        }


def test_every_operation_names_its_channel_and_a_message_of_it() -> None:
    operated = set()
    for operation in DOCUMENT["operations"].values():
        assert operation["action"] in ("send", "receive")
        channel = operation["channel"]["$ref"]
        operated.add(channel)
        for message in operation["messages"]:
            assert message["$ref"].startswith(f"{channel}/messages/")
    assert operated == {f"#/channels/{name}" for name in DOCUMENT["channels"]}


def test_directions_are_those_of_the_pipeline() -> None:
    operations = DOCUMENT["operations"]
    assert "receive_runs_requests" in operations
    assert "send_runs_requests" not in operations
    assert "send_runs_events" in operations
    assert "receive_runs_events" not in operations


@pytest.mark.parametrize("request_", [run_request(), router_request(), rosette_request()])
def test_request_of_a_producer_fits_its_schema(request_: dict[str, Any]) -> None:
    schema = schema_of("RunsRequests", "payload")
    jsonschema.validate(request_, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(request_ | {"unheard_of": 1}, schema)


def test_headers_of_an_event_fit_their_schema() -> None:
    headers = run_event_headers(Outcome("persisted", run_id="r"), SOURCE, 1_700_000_000_000)
    schema = schema_of("RunsEvents", "headers")
    text = {name: value.decode() for name, value in headers}
    jsonschema.validate(text, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(text | {"ce_specversion": "0.3"}, schema)


def test_request_of_an_explainer_fits_its_schema() -> None:
    schema = schema_of("AdvisoriesRequests", "payload")
    jsonschema.validate(advisory_request(), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(advisory_request(content_json=1), schema)


def test_headers_of_an_advisory_event_fit_their_schema() -> None:
    outcome = AdvisoryOutcome("waiting", run_id="r")
    headers = advisory_event_headers(outcome, SOURCE, 1_700_000_000_000)
    text = {name: value.decode() for name, value in headers}
    jsonschema.validate(text, schema_of("AdvisoriesEvents", "headers"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(text, schema_of("RunsEvents", "headers"))


def test_headers_of_a_dead_letter_fit_their_schema() -> None:
    letter = dead_letter(
        (b"k", b"not JSON", [("theirs", b"x")]),
        SOURCE,
        1_700_000_000_000,
        code="INVALID_JSON",
        message="Expected JSON.",
        group="rmos.persist",
    )
    text = {name: (value or b"").decode() for name, value in letter.headers}
    schema = schema_of("RunsDeadLetters", "headers")
    jsonschema.validate(text, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(text | {"rmos-source-offset": "-1"}, schema)
