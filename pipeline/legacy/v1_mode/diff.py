"""How two rows of the v1 store differ, as v1 told it: groups of fields, and how severe it is."""

from collections.abc import Iterator, Mapping
from typing import Any

_ALONE = ("event_type", "status", "notes", "errors")
_GROUPS = {
    "context": ("tool_id", "material_id", "machine_id", "workflow_mode", "workflow_session_id"),
    "hashes": ("request_hash", "toolpaths_hash", "gcode_hash", "geometry_hash"),
}
_TOLD_OF_FEASIBILITY = ("risk_bucket", "score")
"""The fields whose change is named as a path; that of any other is in the diff alone."""

_CRITICAL = {"hashes.gcode_hash", "hashes.toolpaths_hash", "feasibility.risk_bucket", "status"}
_WARNING = {"hashes.request_hash", "feasibility.score"}

Row = Mapping[str, Any]


def diff_rows(a: Row, b: Row) -> dict[str, Any]:
    """Return how row `b` differs from row `a`."""
    diff: dict[str, Any] = {}
    paths: set[str] = set()
    for name, changes in _changed_groups(a, b):
        diff[name] = changes
        told = _TOLD_OF_FEASIBILITY if name == "feasibility" else changes
        paths |= {f"{name}.{field}" for field in told if field in changes}
    alone = _changes(a, b, _ALONE)
    attachments = _attachments(a), _attachments(b)
    if attachments[0] != attachments[1]:
        alone["attachments"] = {"a": attachments[0], "b": attachments[1]}
    return {
        "a": _identity(a),
        "b": _identity(b),
        "diff_severity": _severity(paths | alone.keys()),
        "changed_paths": sorted(paths | alone.keys()),
        "diff": diff | alone,
    }


def _changed_groups(a: Row, b: Row) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, fields in _GROUPS.items():
        if changes := _changes(a, b, fields):
            yield name, changes
    before, after = _object(a.get("feasibility")), _object(b.get("feasibility"))
    if changes := _changes(before, after, sorted(before.keys() | after.keys())):
        yield "feasibility", changes


def _changes(a: Row, b: Row, fields: "tuple[str, ...] | list[str]") -> dict[str, Any]:
    return {
        field: {"a": a.get(field), "b": b.get(field)}
        for field in fields
        if a.get(field) != b.get(field)
    }


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _attachments(row: Row) -> list[dict[str, Any]]:
    listed = row.get("attachments")
    found = [
        {"sha256": each.get("sha256"), "kind": each.get("kind"), "filename": each.get("filename")}
        for each in (listed if isinstance(listed, list) else [])
        if isinstance(each, dict)
    ]
    return sorted(found, key=lambda each: (str(each["kind"] or ""), str(each["sha256"] or "")))


def _identity(row: Row) -> dict[str, Any]:
    return {"run_id": row.get("run_id"), "created_at_utc": row.get("created_at_utc")}


def _severity(paths: set[str]) -> str:
    if paths & _CRITICAL:
        return "CRITICAL"
    return "WARNING" if paths & _WARNING else "INFO"
