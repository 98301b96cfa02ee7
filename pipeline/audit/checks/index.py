"""What follows from the plan alone: leaves compared with each other and with rows; the store root.

Whole rows are compared with their artifacts where those are read; here only what a leaf records.
"""

import os
from collections.abc import Iterator

from pipeline.audit import queries
from pipeline.audit.rules.finding import Finding
from pipeline.audit.step import AuditReader, Step, StepResult
from pipeline.ledger.checksums import root_of_lines
from schemas.audit_finding import AuditCode


def comparisons(part: str, *, has_rows: bool) -> Iterator[Step]:
    """Yield the steps that compare leaves with each other, and with the rows if there are any."""
    for code, query in queries.COMPARE_LEAVES:
        yield Step(part, compare, (code, query))
    for query in (*queries.COMPARE_ROWS, *queries.ROWS_WITHOUT_LEAF) if has_rows else ():
        yield Step(part, compare, ("INDEX_DIFFERS", query))


def compare(reader: AuditReader, code: AuditCode, query: str) -> StepResult:
    """Return a finding for each path where two records differ."""
    result = StepResult()
    for cells in reader.plan.execute(query):
        path, expected, found = ("something else" if cell is None else str(cell) for cell in cells)
        if query not in queries.ROWS_WITHOUT_LEAF or not os.path.lexists(reader.root / path):
            result.add(Finding(code, path, expected, found))
    return result


def compute_store_root(reader: AuditReader) -> StepResult:
    """Return the store root from the plan; None where there are no rows to name the attachments.

    It is over the lines of `sums_of`: the files that leaves name, and the attachments that rows
    name. A full audit compares each row with its artifact and looks for each link, so where it has
    no finding the lines are those that `store_sums` reads out of the files.
    """
    result = StepResult()
    if reader.index is not None:
        lines = (line for (line,) in reader.plan.execute(queries.CHECKSUM_LINES))
        # None is of a leaf that cannot be trusted, which is a finding.
        result.store_root = root_of_lines(line for line in lines if line is not None).hex()
    return result
