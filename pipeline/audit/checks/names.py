"""Names in the folders of runs that no leaf explains: added, copied, or not yet in a log.

A name is looked up in the plan; the files of a date are never all in memory.
"""

import json
import os
from collections.abc import Iterator
from itertools import islice
from typing import Final

from pipeline.audit.context import AuditReader
from pipeline.audit.plan import AuditPlan
from pipeline.audit.rules.finding import Finding
from pipeline.audit.step import StepResult
from pipeline.core.layout import ArtifactPath, LinkPath, parse_path

_LOOKED_UP: Final = 500
_NOT_EXPECTED: Final = """SELECT value FROM json_each(?) WHERE NOT EXISTS
    (SELECT 1 FROM expected WHERE date = ? AND name = value)"""
_IS_ASKED: Final = "SELECT 1 FROM runs_asked WHERE run_id = ?"
_RUN: Final = "SELECT 'runs/' || date || '/' || name FROM runs WHERE run_id = ?"


def check_names(reader: AuditReader, date: str) -> StepResult:
    """Return the names in the folder of `date` that are not expected."""
    result = StepResult()
    result.count("days")
    names = _names(reader, date)
    while batch := list(islice(names, _LOOKED_UP)):
        for name in _not_expected(reader, date, batch):
            path = f"runs/{date}/{name}"
            if not reader.context.of_some_runs or _is_asked(reader, path):
                result.suspects.append(path)
    result.suspects.sort()
    return result


def _names(reader: AuditReader, date: str) -> Iterator[str]:
    try:
        with os.scandir(reader.root / "runs" / date) as entries:
            for entry in entries:
                yield entry.name
    except (FileNotFoundError, NotADirectoryError):
        return


def _not_expected(reader: AuditReader, date: str, names: list[str]) -> list[str]:
    # Bytes that are not UTF-8 are in no name of ours, and SQLite would not keep them.
    foreign = [name for name in names if not name.isascii()]
    own = json.dumps([name for name in names if name.isascii()])
    return foreign + [row[0] for row in reader.plan.execute(_NOT_EXPECTED, (own, date))]


def _is_asked(reader: AuditReader, path: str) -> bool:
    place = parse_path(path)
    if not isinstance(place, ArtifactPath | LinkPath):
        return False
    return reader.plan.execute(_IS_ASKED, (place.run_id,)).fetchone() is not None


def explain(plan: AuditPlan, path: str, found: str) -> Finding:
    """Return the finding about a file below `runs` that no leaf explains.

    Args:
        plan: What is expected.
        path: Of the file.
        found: What is there, in a few words.
    """
    place = parse_path(path)
    if isinstance(place, ArtifactPath):
        own = plan.value(_RUN, (place.run_id,))
        if own is not None:
            expected = f"the run {place.run_id} at {own} alone"
            return Finding("RUN_ID_TWICE", path, expected, "another file of it")
    elif isinstance(place, LinkPath) and plan.value(_RUN, (place.run_id,)) is None:
        expected = f"a leaf of the run {place.run_id}"
        return Finding("LINK_WITHOUT_RUN", path, expected, "a link, and no such leaf")
    return Finding("FILE_UNEXPLAINED", path, "no file: no leaf tells of it", found)
