"""The recorded verdict of a row of an older store, wherever the row has it.

What the row itself decided counts; only where it decided nothing, its evaluation does.
"""

from typing import Any

from pipeline.core.runs.safety import (
    CUTTABLE_RISKS,
    RISK_RANK,
    RiskSource,
    decision_of,
    risk_source_of,
    risk_sources_of_feasibility,
)
from schemas.fields import normalise_risk

_NAMES = ("risk_level", "risk_bucket")
_INNER = ("decision", "safety")


def recorded_decision(decision: object, feasibility: dict[str, Any]) -> dict[str, Any]:
    """Return the decision that a row recorded, as an artifact has it; nothing is added to it.

    The risk is the one in `decision`, else the worst in `feasibility`, at its top, in its
    `decision` and in its `safety`; UNKNOWN where nobody names one. A text that is blank names
    none. What contradicts the risk of `decision` does not count in the other fields.
    """
    own = _own_risk_source(decision)
    sources = list(risk_sources_of_feasibility(_without_blank_risks(feasibility)))
    if own is not None and own.risk_level is not None:
        risk_level = own.risk_level
        sources = [source for source in sources if source.risk_level in {None, risk_level}]
    else:
        risk_level = _worst_risk(sources) or "UNKNOWN"
    if own is not None:
        sources.insert(0, own)
    sources.sort(key=lambda source: source.risk_level != risk_level)
    return decision_of(risk_level, sources, None, _details(decision))


def evaluated_risk(feasibility: dict[str, Any]) -> str | None:
    """Return the worst risk that an evaluation names; None where it names none."""
    return _worst_risk(list(risk_sources_of_feasibility(_without_blank_risks(feasibility))))


def is_called_safe(decision: dict[str, Any], feasibility: dict[str, Any]) -> bool:
    """Return whether every verdict in a row is GREEN or YELLOW."""
    evaluated = list(risk_sources_of_feasibility(_without_blank_risks(feasibility)))
    risks = {
        source.risk_level for source in (risk_source_of(decision, free_form=False), *evaluated)
    }
    return risks - {None} <= CUTTABLE_RISKS and not any(source.is_blocking for source in evaluated)


def _own_risk_source(decision: object) -> RiskSource | None:
    if isinstance(decision, str) and normalise_risk(decision) == decision.strip().upper():
        decision = {"risk_level": decision}
    if not isinstance(decision, dict):
        return None
    return risk_source_of(_without_blank_risk(decision), free_form=True)


def _details(decision: object) -> dict[str, Any] | None:
    details = decision.get("details") if isinstance(decision, dict) else None
    return {"details": details} if isinstance(details, dict) and details else None


def _worst_risk(sources: list[RiskSource]) -> str | None:
    named = (source.risk_level for source in sources if source.risk_level is not None)
    return max(named, key=RISK_RANK.__getitem__, default=None)


def _without_blank_risks(feasibility: dict[str, Any]) -> dict[str, Any]:
    inner = {
        name: _without_blank_risk(value)
        for name in _INNER
        if isinstance(value := feasibility.get(name), dict)
    }
    return _without_blank_risk(feasibility) | inner


def _without_blank_risk(part: dict[str, Any]) -> dict[str, Any]:
    blank = [name for name in _NAMES if isinstance(part.get(name), str) and not part[name].strip()]
    return {name: value for name, value in part.items() if name not in blank} if blank else part
