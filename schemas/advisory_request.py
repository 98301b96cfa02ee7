"""AdvisoryRequest: what an explainer engine publishes about a run."""

from itertools import combinations
from typing import Any, Final, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from schemas.fields import AdvisoryId, Frozen, Label, Prose, RunId, Sha256, UtcTimestamp

ADVISORY_REQUEST_VERSION: Final = "rmos.advisory_request/1"

AdvisoryKind = Literal["explanation", "advisory", "note", "unknown"]


_CONTENTS = ("content_text", "content_json", "content_sha256")


def _both(first: str, second: str) -> dict[str, Any]:
    """Return the JSON Schema of what has both fields; null is the same as leaving one out."""
    there = {"not": {"type": "null"}}
    return {"required": [first, second], "properties": {first: there, second: there}}


class AdvisoryRequest(Frozen):
    """One advisory. Null in a typed field is the same as leaving it out."""

    model_config = ConfigDict(
        json_schema_extra={"not": {"anyOf": [_both(*pair) for pair in combinations(_CONTENTS, 2)]}}
    )

    schema_version: Literal["rmos.advisory_request/1"] | None = ADVISORY_REQUEST_VERSION
    run_id: RunId
    advisory_id: AdvisoryId
    created_at_utc: UtcTimestamp
    kind: AdvisoryKind
    engine_id: Label | None = None
    engine_version: Label | None = None
    request_id: Label | None = None
    title: Prose | None = None
    content_text: str | None = Field(None, description="Markdown, stored as text/markdown.")
    content_json: Any = Field(
        None, description="Any JSON but null, stored canonically as application/json."
    )
    content_sha256: Sha256 | None = Field(None, description="Of a blob that was uploaded.")

    @model_validator(mode="after")
    def _at_most_one_content(self) -> Self:
        contents = (self.content_text, self.content_json, self.content_sha256)
        if sum(content is not None for content in contents) > 1:
            message = "expected at most one of content_text, content_json and content_sha256"
            raise ValueError(message)
        return self
