"""AuditRequest: what somebody asks to be audited, and how thoroughly."""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from schemas.fields import AuditId, Frozen, RunId, UtcDate

AUDIT_REQUEST_VERSION: Final = "rmos.audit_request/1"
SCOPE_LIMIT: Final = 5_000
"""Most dates or run ids of one request: a report, which repeats them, stays below 1 MiB."""

AuditMode = Literal["quick", "full", "sampled"]

_SCOPES = ("all", "dates", "run_ids")


def _one_alone(name: str) -> dict[str, Any]:
    """Return the JSON Schema of what has the field `name`; null is the same as leaving it out."""
    others = {other: {"type": "null"} for other in _SCOPES if other != name}
    return {"required": [name], "properties": others | {name: {"not": {"type": "null"}}}}


def _check_true(value: bool) -> bool:
    # Not Literal[True], which 1 is too; the error is the same.
    if not value:
        kind, message = "literal_error", "Input should be true"
        raise PydanticCustomError(kind, message)
    return value


class AuditScope(Frozen):
    """Exactly one of three: everything, the runs of some dates, or some runs."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [_one_alone(name) for name in _SCOPES]})

    all: (
        Annotated[bool, AfterValidator(_check_true), Field(json_schema_extra={"const": True})]
        | None
    ) = None
    dates: Annotated[list[UtcDate], Field(min_length=1, max_length=SCOPE_LIMIT)] | None = Field(
        None, description="UTC dates of created_at_utc: the folders of the runs."
    )
    run_ids: Annotated[list[RunId], Field(min_length=1, max_length=SCOPE_LIMIT)] | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if sum(scope is not None for scope in (self.all, self.dates, self.run_ids)) != 1:
            raise ValueError("expected exactly one of all, dates and run_ids")
        return self


class AuditRequest(Frozen):
    """One audit. The same audit_id again gives the same report again."""

    schema_version: Literal["rmos.audit_request/1"] | None = AUDIT_REQUEST_VERSION
    audit_id: AuditId = Field(description="The key of the record; it seeds a sample.")
    scope: AuditScope
    mode: AuditMode
