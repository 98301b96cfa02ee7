"""The four verdicts of an audit, from how many findings of which code there were."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.audit.rules.codes import MEANINGS, Verdict
from schemas.audit_finding import AuditCode
from schemas.audit_report import VerdictResult
from schemas.audit_request import AuditMode

_READ: dict[AuditMode, str] = {
    "quick": "names, sizes and modes of files; no file was read",
    "sampled": "names, sizes and modes of files; a share of the files was read",
    "full": "every byte of every file that was asked about",
}

_DATED: dict[AuditMode, str] = {
    "quick": "the dates of the folders of runs",
    "sampled": "the dates of the folders of runs; in a share of the files by their own time",
    "full": "the time in every file that was asked about",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What the verdicts rest on, beside the findings.

    Attributes:
        mode: How closely files were looked at.
        broker: Whether the broker was asked which offsets it can show.
        held: How many checkpoints that somebody holds were given.
        leaves: How many there are.
        anchored_leaves: How many a held checkpoint covers.
    """

    mode: AuditMode
    broker: bool
    held: int
    leaves: int
    anchored_leaves: int


def verdicts(codes: Mapping[AuditCode, int], asked: Asked) -> dict[str, dict[str, Any]]:
    """Return the verdicts in the shape of `AuditVerdicts`."""
    return {
        "integrity": _failed(codes, Verdict.INTEGRITY)
        or _verdict("ok", f"Nothing differs from the leaves, by {_READ[asked.mode]}."),
        "completeness": _failed(codes, Verdict.COMPLETENESS) or _completeness(asked),
        "anchored": _failed(codes, Verdict.ANCHORED) or _anchored(asked),
        "late": _failed(codes, Verdict.LATE)
        or _verdict(
            "ok", f"No record came long after its time, or before it, by {_DATED[asked.mode]}."
        ),
    }


def _verdict(result: VerdictResult, reason: str) -> dict[str, Any]:
    return {"result": result, "reason": reason}


def _failed(codes: Mapping[AuditCode, int], verdict: Verdict) -> dict[str, Any] | None:
    counted = [
        f"{code} {codes[code]:,}"
        for code, meaning in MEANINGS.items()
        if meaning.verdict is verdict and codes.get(code)
    ]
    return _verdict("failed", f"Findings: {', '.join(counted)}.") if counted else None


def _completeness(asked: Asked) -> dict[str, Any]:
    if asked.broker:
        return _verdict("ok", "Every consumed offset that the broker can show has a leaf.")
    return _verdict("unknown", "The broker was not asked which offsets it can show.")


def _anchored(asked: Asked) -> dict[str, Any]:
    if not asked.held:
        return _verdict("unknown", "No checkpoint that somebody else holds was given.")
    told = (
        f"{asked.anchored_leaves:,} of {asked.leaves:,} leaves are covered by checkpoints that "
        "somebody else holds; what came later is as good as whoever has the key."
    )
    return _verdict("ok", told)
