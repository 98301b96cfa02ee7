"""Values of a request that is shown and for which its artifact has no place.

G-code that is too large to stand in an artifact takes `outputs.gcode_path` for itself, and a
decision gives way to an evaluation that says something worse. The bytes of an artifact are fixed by
the version that its request names, so such values are read from the quarantined request.
"""

from collections.abc import Mapping
from typing import Any

from schemas.fields import normalise_risk

_EMPTY: tuple[object, ...] = (None, [], {})


def values_without_place(request: Mapping[str, Any], artifact: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `request` says and `artifact`, which shows it, does not; by dotted path.

    Args:
        request: The request's fields.
        artifact: What they make. One that withholds something shows the request to nobody.
    """
    if not is_shown(artifact):
        return {}
    found = {}
    path = (request.get("outputs") or {}).get("gcode_path")
    if path is not None and path != artifact["outputs"].get("gcode_path"):
        found["outputs.gcode_path"] = path
    decision = request.get("decision") or {}
    if any(_is_overruled(name, value, artifact["decision"]) for name, value in decision.items()):
        found["decision"] = decision
    return found


def is_shown(artifact: Mapping[str, Any]) -> bool:
    """Tell whether an artifact shows what was generated."""
    return artifact["status"] == "OK" and "withheld" not in artifact["provenance"]


def _is_overruled(name: str, value: Any, shown: Mapping[str, Any]) -> bool:  # noqa: ANN401
    if value in _EMPTY:
        return False
    given = normalise_risk(value) if name == "risk_level" else value
    return bool(given != shown.get(name))
