"""What a migration tells: of each row, and of all of them before and after.

Before is what the older store itself told: it looked for a verdict in the row's decision and at
the top of its evaluation, nowhere else, and took a hash for that of the evaluation that was often
the hash of something else.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.core.hashing import sha256_of_json
from pipeline.core.runs.recorded_verdict import evaluated_risk
from pipeline.core.runs.safety import CUTTABLE_RISKS
from schemas.fields import normalise_risk

WRONG = {
    "hash_of_something_else": "In {} of {} rows what was kept as the hash of the evaluation "
    "is not it.",
    "verdict_not_seen": "In {} of {} rows the old store did not find the verdict that is there.",
    "reason_not_seen": "In {} of {} rows the old store did not find the block reason.",
    "ok_without_verdict": "{} of {} rows were recorded as OK though nobody had evaluated them.",
    "verdict_lost": "{} of {} rows were recorded as OK with a decision of UNKNOWN though their "
    "evaluation says GREEN or YELLOW.",
    "ok_though_unsafe": "{} of {} rows were recorded as OK though their risk is RED or ERROR.",
    "decision_contradicted": "In {} of {} rows the evaluation contradicts the decision.",
    "hash_without_content": "{} of {} rows name G-code, toolpaths or a plan by hash alone: nobody "
    "can check it.",
    "attachments_missing": "{} of {} attachments are not there.",
    "attachments_changed": "{} of {} attachments do not have the hash that they are named by.",
    "attachments_pretty_printed": "{} of {} attachments are JSON in another form than was hashed.",
}
"""What an older store got wrong: how many, and of how many."""

_BLOB_FAULTS = {
    "missing": "attachments_missing",
    "mismatch": "attachments_changed",
    "pretty-printed": "attachments_pretty_printed",
}
_OF_BLOBS = frozenset(_BLOB_FAULTS.values())
_PAYLOADS = {
    "toolpaths_hash": "toolpaths",
    "gcode_hash": "gcode_text",
    "opplan_hash": "opplan_json",
    "toolpaths_sha256": "toolpaths",
    "gcode_sha256": "gcode_text",
    "opplan_sha256": "opplan_json",
}


@dataclass(frozen=True, slots=True)
class RowReport:
    """One row before and after.

    Attributes:
        risk_before: As the older store told it.
        evaluation_hash: Whether the old hash of the evaluation is right: agrees, differs or none.
        wrong: What the older store got wrong, names of `WRONG`.
        withheld: How many things are withheld.
    """

    run_id: str
    status: str
    risk_before: str
    risk_after: str
    evaluation_hash: str
    artifact_sha256: str
    wrong: tuple[str, ...]
    withheld: int


def report_row(row: Mapping[str, Any], artifact: Mapping[str, Any], sha256: str) -> RowReport:
    """Return what is told of `row`, which makes `artifact` with this SHA-256."""
    decision = artifact["decision"]
    told = _risk_told(row)
    return RowReport(
        artifact["run_id"],
        artifact["status"],
        told,
        decision["risk_level"],
        _agreement(row),
        sha256,
        tuple(_faults(row, artifact, told)),
        len(artifact["provenance"].get("withheld", ())),
    )


def _faults(row: Mapping[str, Any], artifact: Mapping[str, Any], risk_told: str) -> Iterable[str]:
    risk = artifact["decision"]["risk_level"]
    evaluated = evaluated_risk(_object(row, "feasibility"))
    if _agreement(row) == "differs":
        yield "hash_of_something_else"
    if risk_told != risk:
        yield "verdict_not_seen"
    if "block_reason" in artifact["decision"] and not _reason_told(row):
        yield "reason_not_seen"
    if artifact["status"] == "OK" and risk not in CUTTABLE_RISKS:
        yield _why_ok_is_wrong(risk, evaluated)
    if evaluated not in {None, risk}:
        yield "decision_contradicted"
    if _names_content_it_has_not(row):
        yield "hash_without_content"


def _why_ok_is_wrong(risk: str, evaluated: str | None) -> str:
    """Return what was wrong with a row that is OK and neither GREEN nor YELLOW."""
    if {risk, evaluated} <= {"UNKNOWN", None}:
        return "ok_without_verdict"
    # A first migration wrote UNKNOWN into decisions whose evaluation it had not looked through.
    return "verdict_lost" if evaluated in CUTTABLE_RISKS else "ok_though_unsafe"


def _object(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = row.get(name)
    return value if isinstance(value, dict) else {}


def _risk_told(row: Mapping[str, Any]) -> str:
    """Return the risk as the older store read it."""
    decision, feasibility = _object(row, "decision"), _object(row, "feasibility")
    for place in (decision, feasibility):
        for name in ("risk_level", "risk_bucket"):
            found = place.get(name)
            if isinstance(found, str) and found.strip():
                return normalise_risk(found)
    return "UNKNOWN"


def _reason_told(row: Mapping[str, Any]) -> bool:
    places = (_object(row, "decision"), _object(row, "feasibility"))
    return any(place.get("block_reason") for place in places)


def _agreement(row: Mapping[str, Any]) -> str:
    old = row.get("request_hash") or _object(row, "hashes").get("feasibility_sha256")
    if old is None:
        return "none"
    return "agrees" if old == sha256_of_json(row.get("feasibility") or {}) else "differs"


def _names_content_it_has_not(row: Mapping[str, Any]) -> bool:
    outputs, hashes = _object(row, "outputs"), _object(row, "hashes")
    return any(
        (row.get(name) or hashes.get(name)) and not (row.get(payload) or outputs.get(payload))
        for name, payload in _PAYLOADS.items()
    )


@dataclass(slots=True)
class MigrationTally:
    """Counts over all rows.

    Attributes:
        rows: Of the source.
        mapped: Those that can be carried over.
        refused: Those that cannot, by code.
        attachments: Contents that rows name, by what was found of them.
    """

    rows: int = 0
    mapped: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    risks_before: Counter[str] = field(default_factory=Counter)
    risks_after: Counter[str] = field(default_factory=Counter)
    hashes_before: Counter[str] = field(default_factory=Counter)
    hashes_after: Counter[str] = field(default_factory=Counter)
    attachments: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    withheld: int = 0

    def add(self, report: RowReport, artifact: Mapping[str, Any], blobs: Iterable[str]) -> None:
        """Count a row that can be carried over.

        Args:
            report: What is told of it.
            artifact: What it makes, whose hash is computed once more here.
            blobs: What was found of each content that it names.
        """
        self.rows += 1
        self.mapped += 1
        self.statuses[report.status] += 1
        self.risks_before[report.risk_before] += 1
        self.risks_after[report.risk_after] += 1
        self.hashes_before[report.evaluation_hash] += 1
        recomputed = sha256_of_json(artifact["feasibility"])
        is_right = recomputed == artifact["hashes"]["feasibility_sha256"]
        self.hashes_after["agrees" if is_right else "differs"] += 1
        self.withheld += report.withheld > 0
        self.wrong.update(report.wrong)
        for state in blobs:
            self.attachments[state] += 1
            if state in _BLOB_FAULTS:
                self.wrong[_BLOB_FAULTS[state]] += 1

    def refuse(self, code: str) -> None:
        """Count a row that cannot be carried over."""
        self.rows += 1
        self.refused[code] += 1

    def refuse_part(self, code: str) -> None:
        """Count a file beside a row that cannot be carried over; the row can."""
        self.refused[code] += 1

    def summary(self) -> dict[str, Any]:
        """Return all counts, as JSON has them."""
        return {
            "rows": self.rows,
            "mapped": self.mapped,
            "refused": dict(sorted(self.refused.items())),
            "statuses": dict(sorted(self.statuses.items())),
            "risks_before": dict(sorted(self.risks_before.items())),
            "risks_after": dict(sorted(self.risks_after.items())),
            "hashes_before": dict(sorted(self.hashes_before.items())),
            "hashes_after": dict(sorted(self.hashes_after.items())),
            "attachments": dict(sorted(self.attachments.items())),
            "withheld": self.withheld,
            "wrong": {name: self.wrong[name] for name in WRONG if self.wrong[name]},
        }

    def sentences(self) -> list[str]:
        """Return what the older store got wrong, a sentence each."""
        contents = sum(self.attachments.values())
        return [
            words.format(f"{count:,}", f"{contents if name in _OF_BLOBS else self.mapped:,}")
            for name, words in WRONG.items()
            if (count := self.wrong[name])
        ]
