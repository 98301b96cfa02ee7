"""Describes every topic as an AsyncAPI 3.0.0 document, seen from the pipeline.

`receive` is what the pipeline reads, `send` what it writes; for a producer it is the reverse.
"""

from typing import Any, Final

from pipeline.topics import KEEP_FOREVER_MS, REQUEST_VALUE_LIMIT_BYTES, Topic, topic_table
from schemas.export import DEAD_LETTER_HEADERS_VERSION, json_schemas
from schemas.fields import RUN_ID_PATTERN
from schemas.run_event import RUN_EVENT_VERSION
from schemas.run_request import RUN_REQUEST_VERSION

Json = dict[str, Any]

ASYNCAPI_VERSION: Final = "3.0.0"
CONTRACT_VERSION: Final = "1.0.0"
KAFKA_BINDING_VERSION: Final = "0.5.0"

_CLOUD_EVENT_HEADERS: Final = "cloud_event_headers"
_RUN_KEY = {"type": "string", "pattern": RUN_ID_PATTERN, "description": "The run_id."}

# Topics that the pipeline does not only read, or not only write.
_BOTH = ("receive", "send")
_ACTIONS = {
    "runs.requests": ("receive",),
    "advisories.requests": ("receive",),
    "audits.requests": ("receive",),
    "runs.legacy": _BOTH,
    "redrives": _BOTH,
}


def asyncapi_document(
    prefix: str = "rmos", *, replication: int = 1, request_retention_ms: int = KEEP_FOREVER_MS
) -> Json:
    """Return the document of all topics under `prefix`, in the order of the topic table.

    Args:
        prefix: First part of every topic's name.
        replication: Replication factor, shown in the bindings.
        request_retention_ms: How long request topics are kept, in ms; -1 is for ever.
    """
    table = topic_table(prefix, replication=replication, request_retention_ms=request_retention_ms)
    named = {topic.name.removeprefix(f"{prefix}."): topic for topic in table}
    return {
        "asyncapi": ASYNCAPI_VERSION,
        "info": {
            "title": "RMOS Runs",
            "version": CONTRACT_VERSION,
            "description": "Run requests become immutable artifacts: what was approved, and why.",
        },
        "defaultContentType": "application/json",
        "channels": {name: _channel(name, topic, replication) for name, topic in named.items()},
        "operations": dict(_operation(name, action) for name in named for action in _actions(name)),
        "components": {
            "messages": {_message_name(name): _message(name, named[name]) for name in named},
            "schemas": _schemas(),
        },
    }


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
    if name.startswith("advisories.retry-"):
        return _BOTH
    return _ACTIONS.get(name, ("send",))


def _operation(name: str, action: str) -> tuple[str, Json]:
    channel = f"#/channels/{name}"
    message = {"$ref": f"{channel}/messages/{_message_name(name)}"}
    return f"{action}.{name}", {
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
            "headers": _schema_ref(DEAD_LETTER_HEADERS_VERSION),
            "payload": {"description": "The bytes of the record as they came: anything."},
        }
    if name == "runs.requests":
        return described | {
            "title": RUN_REQUEST_VERSION,
            "description": f"At most {REQUEST_VALUE_LIMIT_BYTES:,} bytes. Headers are optional.",
            "payload": _schema_ref(RUN_REQUEST_VERSION),
            "bindings": _key_binding(_RUN_KEY),
        }
    if name == "runs.events":
        return described | {
            "title": RUN_EVENT_VERSION,
            "description": "CloudEvents 1.0, Kafka binary mode; at least once.",
            "headers": _schema_ref(_CLOUD_EVENT_HEADERS),
            "payload": _schema_ref(RUN_EVENT_VERSION),
            "bindings": _key_binding(_RUN_KEY),
        }
    return described | {"payload": {"type": "object"}}


def _key_binding(key: Json) -> Json:
    return {"kafka": {"key": key, "bindingVersion": KAFKA_BINDING_VERSION}}


def _schema_ref(version: str) -> Json:
    return {"$ref": _schema_pointer(version)}


def _schema_pointer(version: str) -> str:
    return "#/components/schemas/" + version.replace("/", "-")


def _schemas() -> Json:
    published = json_schemas()
    versions = (RUN_REQUEST_VERSION, RUN_EVENT_VERSION, DEAD_LETTER_HEADERS_VERSION)
    embedded = {}
    for version in versions:
        name = version.replace("/", "-")
        embedded[name] = _embedded(published[name], _schema_pointer(version))
    return embedded | {_CLOUD_EVENT_HEADERS: _cloud_event_headers()}


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


def _cloud_event_headers() -> Json:
    text = {"type": "string"}
    return {
        "type": "object",
        "description": "Attributes of CloudEvents 1.0; each value is UTF-8 text.",
        "properties": {
            "ce_specversion": {"const": "1.0"},
            "ce_id": text | {"description": "The event_id, equal for every delivery."},
            "ce_source": {"const": "/rmos/persist"},
            "ce_type": text | {"pattern": r"^rmos\.run\.[a-z]+\.v1$"},
            "ce_time": text | {"description": "Broker time of the request."},
            "ce_subject": text | {"description": "The run_id, where it could be read."},
            "content-type": {"const": "application/json"},
            "traceparent": text | {"description": "That of the request, where it had one."},
        },
        "required": [
            "ce_specversion",
            "ce_id",
            "ce_source",
            "ce_type",
            "ce_time",
            "content-type",
        ],
    }
