"""The report of a migration: each row before and after, and the counts of all.

Before is what the older store itself reported: it looked for a verdict in the row's decision and
at the top of its evaluation, nowhere else, and took a hash for that of the evaluation that was
often the hash of something else.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pipeline.core.hashing import sha256_of_json
from pipeline.core.json.strict import parse_object
from pipeline.core.runs.recorded_verdict import evaluated_risk
from pipeline.core.runs.safety import CUTTABLE_RISKS
from pipeline.legacy.blobs import BlobState
from pipeline.legacy.mapping import UNREAD_LINK
from pipeline.legacy.source import CarriedRow, OlderStore, OwnRow, ReadRow, RefusedRow
from pipeline.legacy.v1.row import as_object
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
        risk_before: As the older store had it.
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
    """Return what is reported of `row`, which makes `artifact` with this SHA-256."""
    decision = artifact["decision"]
    stored_risk = _stored_risk(row)
    return RowReport(
        artifact["run_id"],
        artifact["status"],
        stored_risk,
        decision["risk_level"],
        _agreement(row),
        sha256,
        tuple(_faults(row, artifact, stored_risk)),
        len(artifact["provenance"].get("withheld", ())),
    )


def _faults(row: Mapping[str, Any], artifact: Mapping[str, Any], stored_risk: str) -> Iterable[str]:
    risk = artifact["decision"]["risk_level"]
    evaluated = evaluated_risk(as_object(row.get("feasibility")))
    if _agreement(row) == "differs":
        yield "hash_of_something_else"
    if stored_risk != risk:
        yield "verdict_not_seen"
    if "block_reason" in artifact["decision"] and not _has_reason(row):
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


def _stored_risk(row: Mapping[str, Any]) -> str:
    """Return the risk as the older store read it."""
    decision, feasibility = as_object(row.get("decision")), as_object(row.get("feasibility"))
    for place in (decision, feasibility):
        for name in ("risk_level", "risk_bucket"):
            found = place.get(name)
            if isinstance(found, str) and found.strip():
                return normalise_risk(found)
    return "UNKNOWN"


def _has_reason(row: Mapping[str, Any]) -> bool:
    places = (as_object(row.get("decision")), as_object(row.get("feasibility")))
    return any(place.get("block_reason") for place in places)


def _agreement(row: Mapping[str, Any]) -> str:
    old = row.get("request_hash") or as_object(row.get("hashes")).get("feasibility_sha256")
    if old is None:
        return "none"
    return "agrees" if old == sha256_of_json(row.get("feasibility") or {}) else "differs"


def _names_content_it_has_not(row: Mapping[str, Any]) -> bool:
    outputs, hashes = as_object(row.get("outputs")), as_object(row.get("hashes"))
    return any(
        (row.get(name) or hashes.get(name)) and not (row.get(payload) or outputs.get(payload))
        for name, payload in _PAYLOADS.items()
    )


RowState = Literal["mapped", "published", "already", "conflict", "refused", "ours"]
"""Of one row: mapped (a dry run), published now, on the topic already, in conflict with a run of
this run_id, refused by the mapping, or written by this program in the first place."""

_COUNTED = (
    *("refused", "statuses", "risks_before", "risks_after", "hashes_before", "hashes_after"),
    "attachments",
)
"""What is counted by value, in the order of a summary."""


@dataclass(frozen=True, slots=True)
class RowResult:
    """The result of one row.

    Attributes:
        report: Before and after; None where it cannot be carried over.
        code: Why it was refused or is in conflict.
        message: The same in one sentence.
        attachments: What was found of each content that it names.
    """

    run_id: str
    state: RowState
    report: RowReport | None = None
    code: str | None = None
    message: str | None = None
    attachments: dict[str, str] = field(default_factory=dict)


ReportRow: TypeAlias = Callable[[RowResult], None]


def _no_counts() -> dict[str, Counter[str]]:
    return {name: Counter() for name in (*_COUNTED, "wrong", "states", "outcomes")}


@dataclass(slots=True)
class MigrationResult:
    """The result of all rows.

    Attributes:
        attachments: The folder in which contents were looked for.
        unexpected: How many files of the source were neither runs nor advisories.
        rows: Of the source, those that were read.
        mapped: Those that can be carried over.
        withheld: Those with something withheld.
        counts: Rows and contents by what they are; `outcomes` of the records stored now.
        oversized: Contents that were too large for a message and went into the store directly.
        backup: Of the v1 file.
    """

    attachments: Path | None = None
    unexpected: int = 0
    rows: int = 0
    mapped: int = 0
    withheld: int = 0
    counts: dict[str, Counter[str]] = field(default_factory=_no_counts)
    oversized: list[str] = field(default_factory=list)
    backup: Path | None = None

    @classmethod
    def of(cls, source: OlderStore) -> "MigrationResult":
        """Return the result of a migration that has not begun."""
        return cls(source.blobs.folder, len(source.unexpected))

    @property
    def is_complete(self) -> bool:
        """Whether every row is carried over, with every file beside it."""
        outcomes = self.counts["outcomes"]
        failed = self.counts["states"]["conflict"] + outcomes["conflict"] + outcomes["rejected"]
        return not (self.counts["refused"] or failed)

    def add(self, row: ReadRow, state: RowState) -> list[RowResult]:
        """Count one row; return its result, and that of each file beside it that stays behind."""
        results = self._results_of(row, state)
        self.rows += 1
        self.counts["states"][results[0].state] += 1
        self.counts["refused"].update(str(r.code) for r in results if r.state == "refused")
        return results

    def _results_of(self, row: ReadRow, state: RowState) -> list[RowResult]:
        if isinstance(row, RefusedRow):
            return [RowResult(row.run_id, "refused", code=row.code, message=row.message)]
        if isinstance(row, OwnRow):
            why = "This program wrote the row: its run comes from the request topic."
            return [RowResult(row.run_id, "ours", message=why)]
        unread = [
            RowResult(row.run_id, "refused", code=UNREAD_LINK, message=why) for why in row.unread
        ]
        return [self._carried(row, state), *unread]

    def _carried(self, row: CarriedRow, state: RowState) -> RowResult:
        judged = row.mapped.judged
        artifact, _ = parse_object(judged.built.content)
        report = report_row(row.row, artifact, judged.artifact_sha256)
        self._count(report, artifact, list(row.blobs.values()))
        if state != "conflict":
            return RowResult(row.run_id, state, report, attachments=dict(row.blobs))
        why = "Another request has made the run of this run_id: the row was not published."
        return RowResult(row.run_id, state, report, "RUN_CONFLICT", why, dict(row.blobs))

    def _count(
        self, report: RowReport, artifact: Mapping[str, Any], blobs: list[BlobState]
    ) -> None:
        """Count a row that can be carried over; its artifact's hash is computed once more."""
        self.mapped += 1
        self.withheld += report.withheld > 0
        recomputed = sha256_of_json(artifact["feasibility"])
        is_right = recomputed == artifact["hashes"]["feasibility_sha256"]
        for name, value in (
            ("statuses", report.status),
            ("risks_before", report.risk_before),
            ("risks_after", report.risk_after),
            ("hashes_before", report.evaluation_hash),
            ("hashes_after", "agrees" if is_right else "differs"),
        ):
            self.counts[name][value] += 1
        self.counts["attachments"].update(blobs)
        self.counts["wrong"].update(report.wrong)
        self.counts["wrong"].update(_BLOB_FAULTS[each] for each in blobs if each in _BLOB_FAULTS)

    def summary(self) -> dict[str, Any]:
        """Return all of it, as JSON has it."""
        counts = {name: dict(sorted(counter.items())) for name, counter in self.counts.items()}
        return {
            "rows": self.rows,
            "mapped": self.mapped,
            **{name: counts[name] for name in _COUNTED},
            "withheld": self.withheld,
            "wrong": {name: counts["wrong"][name] for name in WRONG if name in counts["wrong"]},
            "states": counts["states"],
            "outcomes": counts["outcomes"],
            "apart": self.oversized,
            "backup": str(self.backup) if self.backup else None,
            "attachments_folder": str(self.attachments) if self.attachments else None,
            "strange_files": self.unexpected,
            "findings": self.sentences(),
        }

    def sentences(self) -> list[str]:
        """Return what the older store got wrong, a sentence each."""
        contents = self.counts["attachments"].total()
        return [
            words.format(f"{count:,}", f"{contents if name in _OF_BLOBS else self.mapped:,}")
            for name, words in WRONG.items()
            if (count := self.counts["wrong"][name])
        ]
