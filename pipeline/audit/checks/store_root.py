"""The store root of an audit that has read everything: from the plan, without reading it again.

The lines of `checksums_of`: the files of the leaves, and the attachments that rows name. A full
audit compares each row with its artifact and looks for each link, so where it finds nothing the
lines are those that `checksums_of` makes from the files.
"""

from collections.abc import Iterator
from typing import Final

from pipeline.audit.context import AuditReader
from pipeline.audit.step import StepResult
from pipeline.ledger.checksums import root_of_lines

_ATTACHMENT: Final = (
    "{0} || '  attachments/' || substr({0}, 1, 2) || '/' || substr({0}, 3, 2) || '/' || {0}"
)
_LINES: Final = f"""
SELECT sha256 || '  runs/' || date || '/' || name AS line FROM runs WHERE is_run
UNION SELECT told.link_sha256 || '  runs/' || runs.date || '/' || told.run_id || '_advisory_'
    || told.advisory_id || '.json'
    FROM advisories AS told JOIN runs USING (run_id) WHERE runs.is_run AND told.is_advisory
UNION SELECT {_ATTACHMENT.format("kept.sha256")}
    FROM attachment_rows AS kept JOIN runs USING (run_id) WHERE runs.is_run
UNION SELECT {_ATTACHMENT.format("kept.content_sha256")}
    FROM advisory_rows AS kept JOIN runs USING (run_id) JOIN advisories AS told
    USING (run_id, advisory_id)
    WHERE runs.is_run AND told.is_advisory AND kept.content_sha256 IS NOT NULL
ORDER BY line"""


def check_sums(reader: AuditReader) -> StepResult:
    """Return the store root; None where there are no rows to name the attachments."""
    result = StepResult()
    if reader.index is not None:
        result.store_root = root_of_lines(_lines(reader)).hex()
    return result


def _lines(reader: AuditReader) -> Iterator[str]:
    for (line,) in reader.plan.execute(_LINES):
        if line is not None:  # Of a leaf that cannot be trusted, which is a finding.
            yield line
