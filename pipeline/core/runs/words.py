"""A run in words for a person: its verdict with the reason, and its line of a spreadsheet.

They explain; the artifact is the record.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from pipeline.core.layout import attachment_path
from pipeline.core.runs.cut_program import GCODE_KIND
from pipeline.core.runs.outcome import StoredRun
from pipeline.core.runs.safety import CUTTABLE_RISKS
from pipeline.core.visible_text import visible

_PLACES = "decision, feasibility, its decision and its safety"
_MEANINGS = {
    "RISK_UNKNOWN": f"no risk_level is in {_PLACES}, or one of them is UNKNOWN or another word",
    "RISK_RED": f"the worst risk_level in {_PLACES} is RED",
    "RISK_ERROR": f"the worst risk_level in {_PLACES} is ERROR",
    "PRODUCER_BLOCKED": "the status of the request itself is BLOCKED",
    "FEASIBILITY_BLOCKING": "feasibility, its decision or its safety says blocking: true",
    "PRODUCER_ERROR": "the status of the request itself is ERROR, or it has an error",
}


def explained(block_reason: str | None) -> str:
    """Return the reason of a run that is not OK for a person: what a code of ours looked at."""
    if block_reason is None:
        return ""
    meaning = _MEANINGS.get(block_reason)
    return block_reason if meaning is None else f"{block_reason}: {meaning}"


def verdict_words(
    *,
    may_cut: bool,
    status: str,
    risk_level: str,
    block_reason: str | None = None,
    doubt: str | None = None,
) -> str:
    """Return `MAY CUT`, or `DO NOT CUT: ` and the first reason that there is.

    The fields are those of an event, of an artifact's row or of an item of a listing. `may_cut`
    decides, and a doubt about what is stored is a reason not to cut. The reason is the producer's
    text as it stands: where it is shown, it is shown as any other text of a producer.

    Args:
        may_cut: Whether a machine may cut by the run.
        status: OK, BLOCKED or ERROR.
        risk_level: GREEN, YELLOW, RED, UNKNOWN or ERROR.
        block_reason: That of the decision, where it has one.
        doubt: What else is wrong with what would be cut; None where nothing is.
    """
    if may_cut:
        return "MAY CUT" if doubt is None else f"DO NOT CUT: {doubt}"
    if status != "OK":
        reason = explained(block_reason) or f"its status is {status}"
    elif risk_level not in CUTTABLE_RISKS:
        reason = f"its risk is {risk_level}"
    else:
        reason = "it is history of an older store, which no machine cuts by"
    return f"DO NOT CUT: {reason}"


def words_of_run(run: StoredRun, doubt: str | None = None) -> str:
    """Return the verdict of a stored run, as `verdict_words` has it."""
    return verdict_words(
        may_cut=run.may_cut,
        status=run.status,
        risk_level=run.risk_level,
        block_reason=run.block_reason,
        doubt=doubt,
    )


CELL_LIMIT_CHARACTERS: Final = 32_767
"""Longest cell of Excel, which cuts a longer one without a word."""
COLUMNS: Final = (
    *("run_id", "created_at_utc", "verdict", "status", "risk_level", "block_reason"),
    *("mode", "tool_id", "material_id", "machine_id", "workflow_session_id"),
    *("gcode_sha256", "gcode_known_by", "artifact_sha256", "path", "not_exported"),
)
ARCHIVED: Final = "DO NOT CUT: its artifact is archived, and cannot be checked here"
CORRUPT: Final = "DO NOT CUT: its artifact is not what was stored"

# A spreadsheet takes what follows for a formula, at the start of a cell and, where its country
# separates cells by another character than the comma, behind that character too. Tabs and line
# breaks are spelt out before. The last four are the full-width forms of the first.
_FORMULA = re.compile('(^|[;,|])([ "]*)([=+\\-@\uff1d\uff0b\uff0d\uff20])')
_CUT = "... [cut: the artifact has all of it]"


class LeftOut(NamedTuple):
    """A part of a run that is not in the export.

    Attributes:
        name: The path of its file in the store, or the field of the artifact.
        why: `withheld` by a verdict, `missing` in the store, `archived`, or `corrupt`.
    """

    name: str
    why: str


def program_doubt(run: StoredRun, document: Mapping[str, Any]) -> str | None:
    """Return why no machine can cut by an artifact, whatever its decision is; None if one can.

    A run without a program may be cut by the toolpaths or the operation plan that it holds.
    """
    if run.program is not None:
        return None
    attached = {ref["sha256"] for ref in document["attachments"] if ref["kind"] == GCODE_KIND}
    if attached:
        return f"it has {len(attached)} programs, and does not say which of them it cuts"
    if _CUT_WITHOUT_PROGRAM.isdisjoint(run.hashes):
        return "its record names no program"
    return None


_CUT_WITHOUT_PROGRAM: Final = frozenset({"toolpaths_sha256", "opplan_sha256"})


def refused_elsewhere(run_id: str) -> tuple[str, str]:
    """Return verdict and reason of a run that may be cut; the run `run_id` refuses its file."""
    return "MAY CUT by this run alone", f"the run {run_id} refuses exactly the same file"


def line_of_run(
    run: StoredRun,
    document: Mapping[str, Any],
    left_out: Sequence[LeftOut],
    refused_by: str | None = None,
) -> list[str]:
    """Return the cells of a run whose artifact is in the export.

    Args:
        run: As its artifact says.
        document: The artifact.
        left_out: What is not in the export of what belongs to it.
        refused_by: Another run, which refuses the same program.
    """
    program = run.program
    verdict = words_of_run(run, _doubt(run, left_out) or program_doubt(run, document))
    if verdict == "MAY CUT" and refused_by is not None:
        verdict = ": ".join(refused_elsewhere(refused_by))
    values = {
        **document,
        "verdict": verdict,
        "risk_level": run.risk_level,
        "block_reason": run.block_reason,
        "gcode_sha256": program and program.sha256,
        "gcode_known_by": program and program.known_by,
        "artifact_sha256": run.artifact_sha256,
        "path": run.artifact_path,
        "not_exported": "; ".join(f"{each.why} {each.name}" for each in left_out),
    }
    return [cell(values.get(name)) for name in COLUMNS]


def _doubt(run: StoredRun, left_out: Sequence[LeftOut]) -> str | None:
    """Return why a run is not to be cut although its record allows it."""
    program = run.program and attachment_path(run.program.sha256)
    for name, why in left_out:
        if why == "corrupt":
            return f"{name} is not what was stored"
        if why == "missing" and name == program:
            return "the store does not have its program"
    return None


def line_of_corrupt(run_id: str, created_at_utc: str, why: str) -> list[str]:
    """Return the cells of a run whose artifact is not what was stored: nothing else is known."""
    return _line_without_artifact(run_id, created_at_utc, CORRUPT, why)


def line_of_archived(run_id: str, created_at_utc: str, why: str) -> list[str]:
    """Return the cells of a run whose artifact is archived."""
    return _line_without_artifact(run_id, created_at_utc, ARCHIVED, why)


def _line_without_artifact(run_id: str, created_at_utc: str, verdict: str, why: str) -> list[str]:
    values = {
        "run_id": run_id,
        "created_at_utc": created_at_utc,
        "verdict": verdict,
        "not_exported": why,
    }
    return [cell(values.get(name)) for name in COLUMNS]


def cell(value: object) -> str:
    """Return the text of a cell: one line, without formulas, and no longer than Excel takes."""
    text = "" if value is None else visible(str(value))
    # An apostrophe makes a text of what stands behind it.
    harmless = _FORMULA.sub(r"\1\2'\3", text)
    if len(harmless) <= CELL_LIMIT_CHARACTERS:
        return harmless
    return harmless[: CELL_LIMIT_CHARACTERS - len(_CUT)] + _CUT
