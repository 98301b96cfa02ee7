"""The JSON Schema of every published version, as it is frozen in `schemas/frozen`.

Requests are described as a producer may send them; what we write is described as we write it:
absent values are left out there, so null is no value of any typed field.
"""

import json
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from schemas.advisory_event import ADVISORY_EVENT_VERSION, AdvisoryEvent
from schemas.advisory_link import ADVISORY_LINK_VERSION, AdvisoryLink
from schemas.advisory_request import ADVISORY_REQUEST_VERSION, AdvisoryRequest
from schemas.audit_finding import AUDIT_FINDING_VERSION, AuditFinding
from schemas.audit_report import AUDIT_REPORT_VERSION, AuditReport
from schemas.audit_request import AUDIT_REQUEST_VERSION, AuditRequest
from schemas.dead_letter import CutDeadLetterHeaders, DeadLetterHeaders
from schemas.legacy_run import LEGACY_RUN_VERSION, LegacyRun
from schemas.redrive import REDRIVE_VERSION, RedriveRecord
from schemas.run_artifact import RUN_ARTIFACT_VERSION, RunArtifact
from schemas.run_diff import RUN_DIFF_VERSION, RunDiff
from schemas.run_event import RUN_EVENT_VERSION, RunEvent
from schemas.run_request import RUN_REQUEST_VERSION, RunRequest

JSON_SCHEMA_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
DEAD_LETTER_HEADERS_VERSION: Final = "rmos.dead_letter_headers/1"
CUT_DEAD_LETTER_HEADERS_VERSION: Final = "rmos.dead_letter_headers/2"
FROZEN_FOLDER: Final = Path(__file__).with_name("frozen")


class _AsSent(GenerateJsonSchema):
    """What a producer may send. Names of fields are no titles: they say nothing new."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ANN401
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        described = super().default_schema(schema)
        # The types allow null already.
        return {key: item for key, item in described.items() if (key, item) != ("default", None)}


class _AsWritten(_AsSent):
    """What we write: optional means left out, never null."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])


_PUBLISHED: tuple[tuple[str, type[BaseModel], type[GenerateJsonSchema]], ...] = (
    (RUN_REQUEST_VERSION, RunRequest, _AsSent),
    (RUN_ARTIFACT_VERSION, RunArtifact, _AsWritten),
    (RUN_EVENT_VERSION, RunEvent, _AsWritten),
    (RUN_DIFF_VERSION, RunDiff, _AsWritten),
    (ADVISORY_REQUEST_VERSION, AdvisoryRequest, _AsSent),
    (ADVISORY_LINK_VERSION, AdvisoryLink, _AsWritten),
    (ADVISORY_EVENT_VERSION, AdvisoryEvent, _AsWritten),
    (LEGACY_RUN_VERSION, LegacyRun, _AsWritten),
    (AUDIT_REQUEST_VERSION, AuditRequest, _AsSent),
    (AUDIT_FINDING_VERSION, AuditFinding, _AsWritten),
    (AUDIT_REPORT_VERSION, AuditReport, _AsWritten),
    (DEAD_LETTER_HEADERS_VERSION, DeadLetterHeaders, _AsWritten),
    (CUT_DEAD_LETTER_HEADERS_VERSION, CutDeadLetterHeaders, _AsWritten),
    (REDRIVE_VERSION, RedriveRecord, _AsWritten),
)


def json_schemas() -> dict[str, dict[str, Any]]:
    """Return every schema under the stem of its file's name, such as `rmos.run_request-1`."""
    return {
        version.replace("/", "-"): _json_schema(version, shape, generator)
        for version, shape, generator in _PUBLISHED
    }


def _json_schema(
    version: str, shape: type[BaseModel], generator: type[GenerateJsonSchema]
) -> dict[str, Any]:
    schema = shape.model_json_schema(mode="validation", schema_generator=generator)
    return schema | {
        "$schema": JSON_SCHEMA_DIALECT,
        "$id": "urn:" + version.replace(".", ":").replace("/", ":"),
        "title": version,
    }


def schema_text(schema: dict[str, Any]) -> str:
    """Return `schema` as its file holds it: sorted keys, indent of 2, a newline at the end."""
    return json.dumps(schema, sort_keys=True, indent=2, ensure_ascii=False) + "\n"


def write_schemas(folder: Path) -> list[Path]:
    """Write every schema into `folder`, which exists, and return the paths in order of name."""
    paths = []
    for name, schema in sorted(json_schemas().items()):
        path = folder / f"{name}.json"
        path.write_text(schema_text(schema), encoding="utf-8")
        paths.append(path)
    return paths
