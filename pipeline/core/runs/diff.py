"""The difference of two runs: the fields that people ask for, and every value of the decision.

`diff` compares fields as a whole, group by group; `items` goes down into the parts on which the
decision rests. A payload is compared by its hash wherever the artifact has one: computed, claimed
by the producer or an older store, or the name of an attachment of its kind. Absent values are left
out, never written as null, so a null in the answer is one that a document holds.
"""

from functools import partial
from typing import Any

from pipeline.core.json.canonical import canonical_json
from pipeline.core.json.difference import ABSENT, ValueDiff, diff_values, dotted_path, present_sides
from pipeline.core.runs.cut_program import (
    GCODE_KIND,
    OLD_REQUEST_HASH,
    claims_of,
    cut_program,
    old_values,
)
from schemas.run_diff import DiffSeverity

_WHOLE_FIELDS = ("status", "mode", "event_type", "notes", "errors")
_CONTEXT_FIELDS = ("tool_id", "material_id", "machine_id", "workflow_mode", "workflow_session_id")
_DECISION_FIELDS = ("risk_level", "score", "block_reason", "warnings")
# An advisory_id names an advisory within its run only; its content is known by its hash.
_ADVISORY_FIELDS = ("advisory_id", "kind", "content_sha256")
_ITEM_SCOPE = ("decision", "feasibility", "hashes", "request_summary")

_OUTPUT_FIELDS = ("gcode_path", "opplan_path")
# Kinds of attachments that are a payload of an artifact; the evaluation always stands in it.
_PAYLOAD_KINDS: dict[str, frozenset[str]] = {
    "feasibility_sha256": frozenset(),
    "toolpaths_sha256": frozenset({"toolpaths"}),
    "gcode_sha256": frozenset({GCODE_KIND}),
    "opplan_sha256": frozenset({"cam_plan", "opplan", "operation_plan"}),
}

_CRITICAL_PATHS = frozenset(
    {"decision.risk_level", "hashes.gcode_sha256", "hashes.toolpaths_sha256", "status"}
)
_WARNING_PATHS = frozenset(
    {"decision.score", "hashes.feasibility_sha256", f"hashes.{OLD_REQUEST_HASH}"}
)
_GCODE_PATH = "outputs.gcode_path"
# Any of these may decide which of several known programs is the one.
_WHICH_PROGRAM = frozenset({_GCODE_PATH, "attachments", "claimed_hashes.gcode_sha256", "meta.v1"})
_WITHHELD = "withheld"
# No machine cuts by these.
_HARMLESS_WITHHELD = frozenset(
    {
        *("hashes.opplan_sha256", "outputs.opplan_json", "outputs.opplan_path"),
        *("outputs.preview_svg", "outputs.preview_svg_path"),
        *("meta.v1.opplan", "meta.v1.opplan_json", "meta.v1.preview_svg"),
    }
)

_SUMMARY_PATHS = 5
_SUMMARY_PATH_LIMIT_CHARACTERS = 100


def diff_runs(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """Return how run `b` differs from run `a`, in the shape of `RunDiff`.

    Args:
        a: An artifact, with its links merged into `advisory_inputs`.
        b: Another, or the same.

    Returns:
        A document that shares its values with `a` and `b`. Besides the items, which have limits
        of their own, it repeats what differs at most once a group.
    """
    fields = _changed_fields(_whole_view(a), _whole_view(b))
    groups = _changed_groups(a, b)
    paths = _changed_paths(fields, groups)
    critical = _CRITICAL_PATHS | _critical_besides(a, b)
    severity = _severity(paths, critical)
    found = diff_values(_item_scope(a), _item_scope(b))
    return {
        "a": _identity(a),
        "b": _identity(b),
        "diff_severity": severity,
        "changed_paths": paths,
        "diff": fields | groups,
        "items": found.items,
        "truncated": found.truncated,
        "counts": found.counts,
        "summary": _summary(severity, paths, found, critical),
    }


def _identity(run: dict[str, Any]) -> dict[str, Any]:
    return {"run_id": run["run_id"], "created_at_utc": run["created_at_utc"]}


def _changed_fields(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """Return the leaf `{a, b}` of every field that is not the same on both sides."""
    pairs = ((key, a.get(key, ABSENT), b.get(key, ABSENT)) for key in sorted(a.keys() | b.keys()))
    return {key: present_sides(old, new) for key, old, new in pairs if not _is_same(old, new)}


def _is_same(a: object, b: object) -> bool:
    if a is ABSENT or b is ABSENT:
        return a is b
    return canonical_json(a) == canonical_json(b)


def _whole_view(run: dict[str, Any]) -> dict[str, Any]:
    """Return what is compared as one value each."""
    return _only(run, _WHOLE_FIELDS) | {
        "attachments": _references(run.get("attachments", []), ("kind", "sha256")),
        "advisory_inputs": _references(run.get("advisory_inputs", []), _ADVISORY_FIELDS),
        _WITHHELD: _provenance(run).get("withheld", []),
    }


def _references(entries: list[dict[str, Any]], names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return `names` of every entry, sorted by their values in order of name."""
    return sorted((_only(entry, names) for entry in entries), key=canonical_json)


def _changed_groups(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """Return the leaves of every group that has some, under the group's name."""
    a_view, b_view = _grouped_view(a), _grouped_view(b)
    changed = {name: _changed_fields(a_view[name], b_view[name]) for name in a_view}
    return {name: leaves for name, leaves in changed.items() if leaves}


def _grouped_view(run: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what is compared field by field."""
    return {
        "context": _only(run, _CONTEXT_FIELDS),
        "hashes": _known_hashes(run),
        "claimed_hashes": _provenance(run).get("claimed_hashes", {}),
        "outputs": _only(run.get("outputs", {}), _OUTPUT_FIELDS),
        "decision": _only(run.get("decision", {}), _DECISION_FIELDS),
        "feasibility": run.get("feasibility", {}),
        "meta": run.get("meta", {}),
    }


def _known_hashes(run: dict[str, Any]) -> dict[str, Any]:
    """Return the hash of every payload; a list where what is known of one is not the same."""
    hashes = run.get("hashes", {})
    known = dict(hashes)
    for name, kinds in _PAYLOAD_KINDS.items():
        attached = (ref["sha256"] for ref in run.get("attachments", []) if ref["kind"] in kinds)
        own = [hashes[name]] if name in hashes else []
        found = {canonical_json(each): each for each in (*own, *claims_of(run, name), *attached)}
        if found:
            values = [found[key] for key in sorted(found)]
            known[name] = values[0] if len(values) == 1 else values
    if (request_hash := old_values(run).get(OLD_REQUEST_HASH)) is not None:
        known[OLD_REQUEST_HASH] = request_hash
    return known


def _provenance(run: dict[str, Any]) -> dict[str, Any]:
    provenance: dict[str, Any] = run.get("provenance", {})
    return provenance


def _only(value: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value[name] for name in names if name in value}


def _changed_paths(fields: dict[str, Any], groups: dict[str, Any]) -> list[str]:
    """Return the path of every leaf, sorted: `decision.score`, `status`."""
    inside = [dotted_path((name, field)) for name, leaves in groups.items() for field in leaves]
    return sorted([*fields, *inside])


def _item_scope(run: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of a run that `items` compares, as they lie in the run."""
    return _only(run, _ITEM_SCOPE) | {"outputs": _only(run.get("outputs", {}), ("opplan_json",))}


def _critical_besides(a: dict[str, Any], b: dict[str, Any]) -> frozenset[str]:
    """Return which other paths would mean that another program is cut.

    A path identifies a program that has no hash. What is withheld without a hash is known by
    its name alone.
    """
    critical: set[str] = set()
    program, other = (found and found.sha256 for found in map(cut_program, (a, b)))
    if program != other:
        critical |= _WHICH_PROGRAM
    elif program is None:
        critical.add(_GCODE_PATH)
    withheld = (frozenset(_provenance(run).get("withheld", [])) for run in (a, b))
    if frozenset.symmetric_difference(*withheld) - _HARMLESS_WITHHELD:
        critical.add(_WITHHELD)
    return frozenset(critical)


def _severity(paths: list[str], critical: frozenset[str]) -> DiffSeverity:
    if not critical.isdisjoint(paths):
        return "CRITICAL"
    return "INFO" if _WARNING_PATHS.isdisjoint(paths) else "WARNING"


def _summary(
    severity: DiffSeverity, paths: list[str], found: ValueDiff, critical: frozenset[str]
) -> str:
    """Return one sentence for a log or a list.

    At most five paths, those that decide the severity first, each cut to 100 characters.
    """
    if not paths and not found.items:
        return "No differences detected in the fields that are compared."
    weightiest = sorted(paths, key=partial(_weight, critical))[:_SUMMARY_PATHS]
    shown = [_shortened(path) for path in weightiest]
    if len(paths) > _SUMMARY_PATHS:
        shown.append("...")
    named = f" ({', '.join(shown)})" if shown else ""
    noun = "field" if len(paths) == 1 else "fields"
    values = ", ".join(f"{number:,} {op}" for op, number in found.counts.items())
    return f"{severity}: {len(paths):,} {noun} changed{named}; values: {values}."


def _weight(critical: frozenset[str], path: str) -> int:
    """Return what sorts the weightiest path first."""
    return 0 if path in critical else 1 if path in _WARNING_PATHS else 2


def _shortened(path: str) -> str:
    if len(path) <= _SUMMARY_PATH_LIMIT_CHARACTERS:
        return path
    return path[:_SUMMARY_PATH_LIMIT_CHARACTERS] + "..."
