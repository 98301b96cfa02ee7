"""A stored run as a row for a v1 store to go on with: its artifact, and what was linked to it.

The row of a run that came from an older store gets its old values back from `meta.v1`, those
under names that v1 has.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from pipeline.legacy.v1_mode.row import LegacyMark, legacy_row, marked

_ADVISORY_FIELDS = (
    *("advisory_id", "kind", "created_at_utc", "request_id", "engine_id", "engine_version"),
)
_OURS: Final = frozenset({"format", "row_sha256"})


def exported_row(
    artifact: Mapping[str, Any], advisories: Iterable[Mapping[str, Any]], artifact_sha256: str
) -> dict[str, Any]:
    """Return the row of a run, with the mark that says that this program wrote it.

    Args:
        artifact: The run.
        advisories: All of the run, as they are shown.
        artifact_sha256: Of the artifact's bytes.
    """
    row = _with_old_values(legacy_row(artifact), artifact["meta"])
    row["advisory_inputs"] = [_advisory(each) for each in advisories] or None
    return marked(row, LegacyMark(artifact["provenance"]["request_sha256"], artifact_sha256))


def _with_old_values(row: dict[str, Any], meta: Mapping[str, Any]) -> dict[str, Any]:
    old = meta.get("v1")
    if not isinstance(old, dict) or not old.keys() >= _OURS:
        return row
    given_back = {name: value for name, value in old.items() if name in row and name != "meta"}
    rest = {
        name: value for name, value in old.items() if name not in given_back and name not in _OURS
    }
    own = {name: value for name, value in meta.items() if name != "v1"}
    return {**row, **given_back, "meta": {**own, **({"v1": rest} if rest else {})}}


def _advisory(shown: Mapping[str, Any]) -> dict[str, Any]:
    # The program of v1 fails over a field that it does not know.
    known = {name: shown.get(name) for name in _ADVISORY_FIELDS}
    return {
        **known,
        "kind": known["kind"] or "unknown",
        "created_at_utc": known["created_at_utc"] or "",
    }
