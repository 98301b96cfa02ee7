"""Leaves held against each other and against the rows of the index, all as of one moment.

Whole rows are compared with their artifacts where those are read; here it is what a leaf tells.
"""

import os
from typing import Any, Final

from pipeline.audit.context import AuditReader
from pipeline.audit.plan import asked
from pipeline.audit.rules.finding import Finding
from pipeline.audit.step import Step, StepResult
from schemas.audit_finding import AuditCode

_PATH: Final = "'runs/' || runs.date || '/' || runs.name"
_LINK: Final = (
    "coalesce('runs/' || runs.date || '/', 'of no run: ') || told.run_id || '_advisory_' "
    "|| told.advisory_id || '.json'"
)
_LEAF: Final = "logs.topic || '/' || logs.partition || ' at offset ' || told.offset"
_SOURCE: Final = "{0}.epoch || '/' || {0}.topic || '/' || {0}.partition || '/' || {1}.offset"

_RUN_TWICE: Final = f"""SELECT {_PATH}, 'one leaf of ' || run_id || ', SHA-256 ' || runs.sha256,
    'another in ' || {_LEAF} || ': runs/' || told.date || '/' || told.name || ', SHA-256 '
    || told.sha256
    FROM run_leaves AS told JOIN runs USING (run_id) JOIN logs ON logs.log = told.log
    WHERE (told.is_run AND (told.log, told.offset) <> (runs.log, runs.offset)
      OR told.date <> runs.date OR told.sha256 <> runs.sha256) AND {{asked_run}}"""

_ADVISORY_TWICE: Final = f"""SELECT {_LINK},
    'one leaf of this advisory, link SHA-256 ' || first.link_sha256,
    'another in ' || {_LEAF} || ', link SHA-256 ' || told.link_sha256
    FROM advisory_leaves AS told JOIN advisories AS first USING (run_id, advisory_id)
    LEFT JOIN runs USING (run_id) JOIN logs ON logs.log = told.log
    WHERE (told.is_advisory AND (told.log, told.offset) <> (first.log, first.offset)
      OR told.link_sha256 <> first.link_sha256) AND {{asked_advisory}}"""

_RUN_WITHOUT_ROW: Final = f"""SELECT {_PATH}, 'a row of the run ' || run_id, 'none'
    FROM runs LEFT JOIN run_rows AS kept USING (run_id)
    WHERE kept.run_id IS NULL AND {{asked_run}}"""

_ROW_WITHOUT_LEAF: Final = """SELECT kept.artifact_path, 'no row: no leaf tells of this run',
    'a row of the run ' || run_id
    FROM run_rows AS kept LEFT JOIN runs USING (run_id)
    WHERE runs.run_id IS NULL AND {asked_row}"""

_OTHER_ROW: Final = f"""SELECT {_PATH}, 'a row with SHA-256 ' || runs.sha256 || ', '
    || runs.size_bytes || ' bytes, from ' || {_SOURCE.format("logs", "runs")},
    'one of ' || kept.artifact_path || ' with SHA-256 ' || kept.sha256 || ', ' || kept.size_bytes
    || ' bytes, from ' || coalesce({_SOURCE.format("kept", "kept")}, 'no record')
    FROM runs JOIN logs USING (log) JOIN run_rows AS kept USING (run_id)
    WHERE (kept.artifact_path <> {_PATH} OR runs.sha256 <> kept.sha256
      OR runs.size_bytes <> kept.size_bytes
      OR runs.is_run AND (kept.epoch IS NOT logs.epoch OR kept.topic IS NOT logs.topic
        OR kept.partition IS NOT logs.partition OR kept.offset IS NOT runs.offset))
    AND {{asked_run}}"""

_ADVISORY_WITHOUT_ROW: Final = f"""SELECT {_LINK}, 'a row of this advisory', 'none'
    FROM advisories AS told LEFT JOIN runs USING (run_id)
    LEFT JOIN advisory_rows AS kept USING (run_id, advisory_id)
    WHERE kept.run_id IS NULL AND {{asked_advisory}}"""

_ROW_WITHOUT_ADVISORY: Final = f"""SELECT {_LINK}, 'no row: no leaf tells of this advisory',
    'a row of it'
    FROM advisory_rows AS told LEFT JOIN advisories AS leaf USING (run_id, advisory_id)
    LEFT JOIN runs USING (run_id) WHERE leaf.run_id IS NULL AND {{asked_advisory}}"""

_OTHER_ADVISORY_ROW: Final = f"""SELECT {_LINK}, 'a row with link SHA-256 ' || told.link_sha256,
    'one of ' || coalesce(kept.link_path, 'no link yet') || ' with SHA-256 ' || kept.link_sha256
    FROM advisories AS told JOIN advisory_rows AS kept USING (run_id, advisory_id)
    LEFT JOIN runs USING (run_id)
    WHERE (told.link_sha256 <> kept.link_sha256
      OR kept.link_path IS NOT NULL AND (runs.run_id IS NULL OR kept.link_path <> {_LINK}))
    AND {{asked_advisory}}"""

# Where the file of such a row is there, it is told of as a file that no leaf explains.
_WITHOUT_LEAF: Final = {_ROW_WITHOUT_LEAF, _ROW_WITHOUT_ADVISORY}

_OF_LEAVES: Final[tuple[tuple[AuditCode, str], ...]] = (
    ("RUN_ID_TWICE", _RUN_TWICE),
    ("ADVISORY_ID_TWICE", _ADVISORY_TWICE),
)
_OF_ROWS: Final[tuple[tuple[AuditCode, str], ...]] = tuple(
    ("INDEX_DIFFERS", query)
    for query in (
        _RUN_WITHOUT_ROW,
        _ROW_WITHOUT_LEAF,
        _OTHER_ROW,
        _ADVISORY_WITHOUT_ROW,
        _ROW_WITHOUT_ADVISORY,
        _OTHER_ADVISORY_ROW,
    )
)


def comparisons(part: str, *, has_rows: bool) -> list[Step]:
    """Return the steps that compare leaves with each other, and with the rows if there are any."""
    queries = (*_OF_LEAVES, *(_OF_ROWS if has_rows else ()))
    return [Step(part, compare, each) for each in queries]


def compare(reader: AuditReader, code: AuditCode, query: str) -> StepResult:
    """Return a finding for each path where two do not tell the same."""
    everything = reader.context.is_whole
    conditions = {
        "asked_run": asked("runs.date", "runs.run_id", everything=everything),
        "asked_row": asked("kept.date", "kept.run_id", everything=everything),
        "asked_advisory": asked("runs.date", "told.run_id", everything=everything),
    }
    result = StepResult()
    for row in reader.plan.execute(query.format(**conditions)):
        path, expected, found = (_told(cell) for cell in row)
        if query not in _WITHOUT_LEAF or not os.path.lexists(reader.root / path):
            result.add(Finding(code, path, expected, found))
    return result


def _told(cell: Any) -> str:  # noqa: ANN401
    """Return what a cell tells; of a leaf that cannot be trusted there is nothing to tell."""
    return "something else" if cell is None else str(cell)
