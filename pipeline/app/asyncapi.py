"""The AsyncAPI 3.0.0 document of every topic, seen from the pipeline.

`receive` is what the pipeline reads, `send` what it writes; for a producer it is the reverse.
"""

import re
from typing import Any, Final

from pipeline.audit.rules.finding import AUDIT_EVENT_SOURCE
from pipeline.broker.admin.topics import wanted_topics
from pipeline.core.advisories.outcome import ADVISORY_EVENT_SOURCE
from pipeline.core.runs.event import EVENT_SOURCE
from pipeline.settings import Settings
from pipeline.topics import REQUEST_VALUE_LIMIT_BYTES, Topic
from schemas.advisory_event import ADVISORY_EVENT_VERSION
from schemas.advisory_request import ADVISORY_REQUEST_VERSION
from schemas.audit_finding import AUDIT_FINDING_VERSION
from schemas.audit_report import AUDIT_REPORT_VERSION
from schemas.audit_request import AUDIT_REQUEST_VERSION
from schemas.export import CUT_DEAD_LETTER_HEADERS_VERSION, json_schemas
from schemas.fields import AUDIT_ID_PATTERN, RUN_ID_PATTERN
from schemas.legacy_run import LEGACY_RUN_VERSION
from schemas.redrive import REDRIVE_VERSION
from schemas.run_event import RUN_EVENT_VERSION
from schemas.run_request import RUN_REQUEST_VERSION

Json = dict[str, Any]

ASYNCAPI_VERSION: Final = "3.0.0"
CONTRACT_VERSION: Final = "1.0.0"
KAFKA_BINDING_VERSION: Final = "0.5.0"

_SASL_TYPES: Final = {
    "PLAIN": "plain",
    "SCRAM-SHA-256": "scramSha256",
    "SCRAM-SHA-512": "scramSha512",
}
"""Mechanisms as AsyncAPI names them."""

_RUN_EVENT_HEADERS: Final = "cloud_event_headers"
_ADVISORY_EVENT_HEADERS: Final = "advisory_event_headers"
_AUDIT_EVENT_HEADERS: Final = "audit_event_headers"
_REQUESTS = {
    "runs.requests": RUN_REQUEST_VERSION,
    "advisories.requests": ADVISORY_REQUEST_VERSION,
    "runs.legacy": LEGACY_RUN_VERSION,
    "audits.requests": AUDIT_REQUEST_VERSION,
}
_EVENTS = {
    "runs.events": (RUN_EVENT_VERSION, _RUN_EVENT_HEADERS),
    "advisories.events": (ADVISORY_EVENT_VERSION, _ADVISORY_EVENT_HEADERS),
    "audits.findings": (AUDIT_FINDING_VERSION, _AUDIT_EVENT_HEADERS),
    "audits.reports": (AUDIT_REPORT_VERSION, _AUDIT_EVENT_HEADERS),
}
_RUN_KEY = {"type": "string", "pattern": RUN_ID_PATTERN, "description": "The run_id."}
_AUDIT_KEY = {"type": "string", "pattern": AUDIT_ID_PATTERN, "description": "The audit_id."}

_AUDIT_TOPICS = "audits."

# Topics that the pipeline does not only read, or not only write.
_BOTH = ("receive", "send")
_ACTIONS = {
    "runs.requests": ("receive",),
    "advisories.requests": ("receive",),
    "audits.requests": _BOTH,
    "runs.legacy": _BOTH,
    "redrives": _BOTH,
}


def asyncapi_document(settings: Settings) -> Json:
    """Return the document of all topics of the settings, in the order of the topic table."""
    start = f"{settings.prefix}."
    named = {topic.name.removeprefix(start): topic for topic in wanted_topics(settings)}
    return {
        "asyncapi": ASYNCAPI_VERSION,
        "info": {
            "title": "RMOS Runs",
            "version": CONTRACT_VERSION,
            "description": "Run requests become immutable artifacts: what was approved, and why.",
        },
        "defaultContentType": "application/json",
        "servers": _servers(settings),
        "channels": {
            name: _channel(name, topic, settings.replication) for name, topic in named.items()
        },
        "operations": dict(_operation(name, action) for name in named for action in _actions(name)),
        "components": {
            "messages": {_message_name(name): _message(name, named[name]) for name in named},
            "schemas": _schemas(),
            "securitySchemes": {name: {"type": name} for name in _SASL_TYPES.values()},
        },
    }


def _servers(settings: Settings) -> Json:
    protocol = settings.security_protocol
    described: Json = {"protocol": "kafka-secure" if "SSL" in protocol else "kafka"}
    if protocol.startswith("SASL_"):
        scheme = _SASL_TYPES[settings.sasl_mechanism]
        described["security"] = [{"$ref": f"#/components/securitySchemes/{scheme}"}]
    hosts = [host.strip() for host in settings.bootstrap_servers.split(",")]
    return {f"broker_{number}": {"host": host, **described} for number, host in enumerate(hosts, 1)}


def _channel(name: str, topic: Topic, replication: int) -> Json:
    message = _message_name(name)
    return {
        "address": topic.name,
        "summary": topic.summary,
        "messages": {message: {"$ref": f"#/components/messages/{message}"}},
        "bindings": {
            "kafka": {
                "topic": topic.name,
                "partitions": topic.partitions,
                "replicas": replication,
                "topicConfiguration": _configuration(topic.configs),
                "bindingVersion": KAFKA_BINDING_VERSION,
            }
        },
    }


def _configuration(configs: dict[str, str]) -> Json:
    """Return the topic's settings in the types that the Kafka binding asks for."""
    typed: Json = {}
    for name, text in configs.items():
        if name == "cleanup.policy":
            typed[name] = text.split(",")
        else:
            typed[name] = int(text) if text.lstrip("-").isdigit() else text
    return typed


def _actions(name: str) -> tuple[str, ...]:
    return _ACTIONS.get(name, ("send",))


def _operation(name: str, action: str) -> tuple[str, Json]:
    channel = f"#/channels/{name}"
    message = {"$ref": f"{channel}/messages/{_message_name(name)}"}
    return re.sub(r"[.-]", "_", f"{action}_{name}"), {
        "action": action,
        "channel": {"$ref": channel},
        "messages": [message],
    }


def _message_name(name: str) -> str:
    """Return the name of the message of a topic: `runs.dead-letters` has `RunsDeadLetters`."""
    return "".join(word.capitalize() for word in name.replace(".", "-").split("-"))


def _message(name: str, topic: Topic) -> Json:
    described: Json = {"name": _message_name(name), "summary": topic.summary}
    if name.endswith(".dead-letters"):
        return described | {
            "contentType": "application/octet-stream",
            "headers": _schema_ref(CUT_DEAD_LETTER_HEADERS_VERSION),
            "payload": {"description": "The bytes of the record as they came: anything."},
        }
    key = _AUDIT_KEY if name.startswith(_AUDIT_TOPICS) else _RUN_KEY
    if name in _REQUESTS:
        return described | _request(_REQUESTS[name], key)
    if name in _EVENTS:
        return described | _event(*_EVENTS[name], key)
    if name == "redrives":
        return described | {
            "title": REDRIVE_VERSION,
            "description": "In one transaction with the record that was sent; key is its source.",
            "payload": _schema_ref(REDRIVE_VERSION),
        }
    return described | {"payload": {"type": "object"}}


def _request(version: str, key: Json) -> Json:
    return {
        "title": version,
        "description": f"At most {REQUEST_VALUE_LIMIT_BYTES:,} bytes. Headers are optional.",
        "payload": _schema_ref(version),
        "bindings": _key_binding(key),
    }


def _event(version: str, headers: str, key: Json) -> Json:
    return {
        "title": version,
        "description": "CloudEvents 1.0, Kafka binary mode; at least once.",
        "headers": _schema_ref(headers),
        "payload": _schema_ref(version),
        "bindings": _key_binding(key),
    }


def _key_binding(key: Json) -> Json:
    return {"kafka": {"key": key, "bindingVersion": KAFKA_BINDING_VERSION}}


def _schema_ref(version: str) -> Json:
    return {"$ref": _schema_pointer(version)}


def _schema_pointer(version: str) -> str:
    return "#/components/schemas/" + version.replace("/", "-")


def _schemas() -> Json:
    published = json_schemas()
    versions = (
        *_REQUESTS.values(),
        *(version for version, _ in _EVENTS.values()),
        CUT_DEAD_LETTER_HEADERS_VERSION,
        REDRIVE_VERSION,
    )
    embedded = {}
    for version in versions:
        name = version.replace("/", "-")
        embedded[name] = _embedded(published[name], _schema_pointer(version))
    return embedded | {
        _RUN_EVENT_HEADERS: _cloud_event_headers(EVENT_SOURCE, "run"),
        _ADVISORY_EVENT_HEADERS: _cloud_event_headers(ADVISORY_EVENT_SOURCE, "advisory"),
        _AUDIT_EVENT_HEADERS: _cloud_event_headers(AUDIT_EVENT_SOURCE, "audit", "audit_id"),
    }


def _embedded(schema: Json, pointer: str) -> Json:
    """Return a schema whose references to its own parts hold inside this document."""
    moved: Json = _with_references_below(schema, pointer)
    # An identifier of its own would make every reference in it start from there.
    return {name: part for name, part in moved.items() if name not in ("$id", "$schema")}


def _with_references_below(node: Any, pointer: str) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(node, dict):
        return {
            name: part.replace("#/", f"{pointer}/", 1)
            if name == "$ref"
            else _with_references_below(part, pointer)
            for name, part in node.items()
        }
    if isinstance(node, list):
        return [_with_references_below(part, pointer) for part in node]
    return node


def _cloud_event_headers(source: str, kind: str, subject: str = "run_id") -> Json:
    text = {"type": "string"}
    attributes = {
        "ce_specversion": {"const": "1.0"},
        "ce_id": text | {"description": "Equal for every delivery."},
        "ce_source": {"const": source},
        "ce_type": text | {"pattern": rf"^rmos\.{kind}\.[a-z]+\.v1$"},
        "ce_time": text | {"description": "Time of the request's record."},
        "ce_subject": text | {"description": f"The {subject}, where it could be read."},
        "content-type": {"const": "application/json"},
        "traceparent": text | {"description": "That of the request, where it had one."},
    }
    return {
        "type": "object",
        "description": "Attributes of CloudEvents 1.0; each value is UTF-8 text.",
        "properties": attributes,
        "required": [name for name in attributes if name not in {"ce_subject", "traceparent"}],
    }
