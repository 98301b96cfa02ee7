"""The safety policy: the risk of a request, and the status that follows.

Unsafe is never OK. The worst risk found anywhere counts, whatever else a producer claims.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from schemas.fields import PROSE_LIMIT_CHARACTERS, RISK_LEVELS, normalise_risk

RISK_ORDER = ("GREEN", "YELLOW", "UNKNOWN", "ERROR", "RED")
"""From the best to the worst."""

RISK_RANK = {level: rank for rank, level in enumerate(RISK_ORDER)}
CUTTABLE_RISKS = frozenset({"GREEN", "YELLOW"})
_UNSAFE_RISKS = RISK_LEVELS - CUTTABLE_RISKS
SCORE_LIMIT = 100
_KEYS_READ = frozenset(
    {
        *("risk_level", "risk_bucket", "score", "block_reason", "warnings"),
        *("blocking", "blocking_reasons"),
    }
)
"""All that is read of a free-form place: one without any of them is no source."""


class RiskSource(msgspec.Struct, frozen=True, gc=False):
    """One part of a request in which a producer may have put a verdict.

    Attributes:
        content: The object.
        free_form: Whether its fields are the producer's own; only then are `risk_bucket`,
            `blocking` and `blocking_reasons` looked at.
        risk_level: The worst risk named here; None where none is.
    """

    content: dict[str, Any]
    free_form: bool
    risk_level: str | None

    @property
    def is_blocking(self) -> bool:
        """Whether an evaluation has `blocking: true`."""
        return self.free_form and self.content.get("blocking") is True

    @property
    def score(self) -> float | int | None:
        """The score, where it is one."""
        score = self.content.get("score")
        if isinstance(score, bool) or not isinstance(score, int | float):
            return None
        return score if 0 <= score <= SCORE_LIMIT else None

    @property
    def block_reason(self) -> str | None:
        """The reason, else the reasons joined; None where there is none or it does not fit."""
        reason = self.content.get("block_reason")
        if _is_prose(reason) and reason:
            return str(reason)
        reasons = self.content.get("blocking_reasons") if self.free_form else None
        if reasons is None or not _is_prose_list(reasons):
            return None
        joined = "; ".join(reasons)
        return joined if joined and len(joined) <= PROSE_LIMIT_CHARACTERS else None

    @property
    def warnings(self) -> list[str] | None:
        """The warnings, where they are a list of texts."""
        warnings = self.content.get("warnings")
        return warnings if _is_prose_list(warnings) else None


def risk_source_of(content: dict[str, Any], *, free_form: bool) -> RiskSource:
    """Return the source that holds `content`, with the worst risk that it names."""
    risk_level = _risk_of(content.get("risk_level"))
    if free_form and "risk_bucket" in content:
        risk_level = _worse_of(risk_level, _risk_of(content["risk_bucket"]))
    return RiskSource(content, free_form, risk_level)


def _risk_of(value: object) -> str | None:
    if value is None:
        return None
    return normalise_risk(value) if isinstance(value, str) else "UNKNOWN"


def _worse_of(one: str | None, other: str | None) -> str | None:
    if one is None or other is None:
        return other if one is None else one
    return max(one, other, key=RISK_RANK.__getitem__)


def _is_prose(value: object) -> bool:
    return isinstance(value, str) and len(value) <= PROSE_LIMIT_CHARACTERS


def _is_prose_list(value: Any) -> bool:  # noqa: ANN401
    return isinstance(value, list) and all(map(_is_prose, value))


class Judgement(msgspec.Struct, frozen=True, gc=False):
    """The result of the policy for one complete request.

    Attributes:
        status: OK, BLOCKED or ERROR.
        decision: The artifact's decision, absent values left out.
    """

    status: str
    decision: dict[str, Any]

    @property
    def is_ok(self) -> bool:
        """Whether the run shows what was generated."""
        return self.status == "OK"


def judge_safety(
    *,
    decision: dict[str, Any] | None,
    feasibility: dict[str, Any],
    producer_status: str | None,
    producer_failed: bool,
) -> Judgement:
    """Return status and decision of a request without violations.

    Args:
        decision: The producer's decision, if it sent one.
        feasibility: The server's evaluation.
        producer_status: The status that the producer saw, if any.
        producer_failed: Whether the producer reported an error.
    """
    sources = list(_risk_sources(decision, feasibility))
    worst = None
    blocking = False
    for source in sources:
        worst = _worse_of(worst, source.risk_level)
        blocking = blocking or source.is_blocking
    risk_level = worst or "UNKNOWN"
    # The first source of the worst risk speaks first, then the others in their order.
    sources.sort(key=lambda source: source.risk_level != risk_level)
    status, fallback_reason = _status(risk_level, producer_status, producer_failed, blocking)
    return Judgement(status, decision_of(risk_level, sources, fallback_reason, decision))


def _risk_sources(
    decision: dict[str, Any] | None, feasibility: dict[str, Any]
) -> Iterator[RiskSource]:
    if decision is not None:
        yield risk_source_of(decision, free_form=False)
    yield from risk_sources_of_feasibility(feasibility)


def risk_sources_of_feasibility(feasibility: dict[str, Any]) -> Iterator[RiskSource]:
    """Yield the sources of an evaluation, those of its top, its `decision` and its `safety`."""
    if not _KEYS_READ.isdisjoint(feasibility):
        yield risk_source_of(feasibility, free_form=True)
    for key in ("decision", "safety"):
        inner = feasibility.get(key)
        if isinstance(inner, dict):
            if not _KEYS_READ.isdisjoint(inner):
                yield risk_source_of(inner, free_form=True)
        elif isinstance(inner, str) and inner.strip().upper() in _UNSAFE_RISKS:
            # No object, so it makes nothing OK; but a bare RED is not ignored.
            yield risk_source_of({"risk_level": inner}, free_form=True)


def _status(
    risk_level: str, producer_status: str | None, producer_failed: bool, blocking: bool
) -> tuple[str, str | None]:
    """Return the status and the reason that stands where no source gives one."""
    if risk_level not in CUTTABLE_RISKS:
        return "BLOCKED", f"RISK_{risk_level}"
    if producer_status == "BLOCKED":
        return "BLOCKED", "PRODUCER_BLOCKED"
    if blocking:
        return "BLOCKED", "FEASIBILITY_BLOCKING"
    if producer_status == "ERROR" or producer_failed:
        return "ERROR", "PRODUCER_ERROR"
    return "OK", None


def decision_of(
    risk_level: str,
    sources: list[RiskSource],
    fallback_reason: str | None,
    sent: dict[str, Any] | None,
) -> dict[str, Any]:
    """Return an artifact's decision: of all sources, the first value of each kind.

    Args:
        risk_level: The risk that counts.
        sources: In the order in which they speak.
        fallback_reason: The reason that stands where no source gives one, if any.
        sent: The producer's decision, whose details are kept.
    """
    found: dict[str, Any] = {"risk_level": risk_level}
    reason = None
    for source in sources:
        if found.get("score") is None:
            found["score"] = source.score
        reason = reason or source.block_reason
        # An empty list counts only where no source has another.
        if not found.get("warnings") and (listed := source.warnings) is not None:
            found["warnings"] = listed
    found["block_reason"] = reason or fallback_reason
    found["details"] = sent.get("details") if sent else None
    return {key: value for key, value in found.items() if value is not None}


def may_cut(*, status: str, risk_level: str, legacy: bool = False) -> bool:
    """Return whether a machine may cut by a stored run."""
    return status == "OK" and risk_level in CUTTABLE_RISKS and not legacy


assert frozenset(RISK_ORDER) == RISK_LEVELS
