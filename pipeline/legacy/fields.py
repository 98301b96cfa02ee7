"""Values of a row of an older store, mapped one by one to the fields that they fit.

What is not taken stays, under its own name and as it was: so nothing can be dropped by mistake.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, TypeAdapter
from pydantic.fields import FieldInfo

from pipeline.core.json.canonical import canonical_json
from pipeline.core.violations import fits
from schemas.fields import Label
from schemas.run_request import AttachmentRef, RunContext, RunOutputs

Fits = Callable[[Any], bool]

# Null in one of these names means no value: every row of a v1 store has them all.
KNOWN_NAMES: Final = frozenset(RunContext.model_fields) | {
    *("advisory_inputs", "attachments", "created_at_utc", "decision", "event_type"),
    *("explanation_status", "explanation_summary", "feasibility", "fork_of_event_type"),
    *("fork_reason", "gate_policy_version", "gcode_hash", "gcode_path", "gcode_text", "hashes"),
    *("lineage", "meta", "mode", "opplan_hash", "opplan_json", "opplan_path", "outputs"),
    *("override_note", "preview_svg", "preview_svg_path", "request_hash", "request_summary"),
    *("run_id", "status", "tool_id", "toolpaths", "toolpaths_hash"),
}


def _fits(annotation: Any) -> Fits:  # noqa: ANN401
    return partial(fits, TypeAdapter(annotation, config=ConfigDict(strict=True)))


def _of_field(field: FieldInfo) -> Fits:
    annotation: Any = field.annotation
    for constraint in field.metadata:
        annotation = Annotated[annotation, constraint]
    return _fits(annotation)


def _fields_of(shape: type[BaseModel], without: str = "") -> dict[str, Fits]:
    return {name: _of_field(field) for name, field in shape.model_fields.items() if name != without}


fits_label: Final = _fits(Label)
CONTEXT_FIELDS: Final = _fields_of(RunContext, without="error")
"""Fields that row and artifact have under one name; no older store has an `error`."""

OUTPUT_FIELDS: Final = _fields_of(RunOutputs)
ATTACHMENT_FIELDS: Final = _fields_of(AttachmentRef)


def is_object(value: object) -> bool:
    """Return whether a value is a JSON object."""
    return isinstance(value, dict)


def same_json(one: object, other: object) -> bool:
    """Return whether two values are the same JSON: `1`, `1.0` and `true` are three."""
    return canonical_json(one) == canonical_json(other)


class UnmappedFields:
    """The fields of a row that are not mapped yet."""

    def __init__(self, row: Mapping[str, Any]) -> None:
        self._values = dict(row)

    def get(self, name: str) -> Any:  # noqa: ANN401
        """Return a value that stays; None where there is none."""
        return self._values.get(name)

    def take(self, name: str, fits: Fits) -> Any:  # noqa: ANN401
        """Return a value and take it, if it is there and fits; else None, and it stays."""
        value = self._values.get(name)
        if value is None or not fits(value):
            return None
        return self._values.pop(name)

    def take_all(self, fields: Mapping[str, Fits]) -> dict[str, Any]:
        """Take every value that fits its field."""
        taken = ((name, self.take(name, fits)) for name, fits in fields.items())
        return {name: value for name, value in taken if value is not None}

    def keep_rest(self, name: str, rest: Any) -> None:  # noqa: ANN401
        """Leave `rest` of a value; None where all of it was taken."""
        if rest is None:
            self._values.pop(name, None)
        else:
            self._values[name] = rest

    def rest(self) -> dict[str, Any]:
        """Return the values that no field took."""
        return {
            name: value
            for name, value in self._values.items()
            if value is not None or name not in KNOWN_NAMES
        }
