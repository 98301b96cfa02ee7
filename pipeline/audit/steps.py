"""The steps of an audit once its plan is settled, in the order of its parts."""

import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Final

from pipeline.audit.checks.blobs import (
    SLICE_BLOBS,
    check_area,
    check_blob_folder,
    check_blob_names,
)
from pipeline.audit.checks.files import SLICE_FILES, check_files
from pipeline.audit.checks.index import comparisons
from pipeline.audit.checks.logs import AuditedLog
from pipeline.audit.checks.names import check_names
from pipeline.audit.checks.places import blob_folders, check_places, dates_on_disk
from pipeline.audit.checks.store_root import check_sums
from pipeline.audit.context import AuditContext
from pipeline.audit.plan import AuditPlan
from pipeline.audit.step import Step
from pipeline.core.layout import BlobArea
from schemas.audit_request import AuditScope

LEDGER_PART: Final = "ledger"
PLACES_PART: Final = "places"


def audit_steps(
    context: AuditContext,
    plan: AuditPlan,
    scope: AuditScope,
    logs: Sequence[AuditedLog],
    skip: Collection[str],
) -> Iterator[Step]:
    """Yield what is to be done, but for the parts in `skip`.

    Args:
        context: Of every process.
        plan: Which is settled.
        scope: What is asked about.
        logs: As they were when the audit began.
        skip: Parts that were done before.
    """
    root = Path(context.root)
    # Without logs the rows stand for leaves, and there is nothing to compare.
    if logs and LEDGER_PART not in skip:
        yield from comparisons(LEDGER_PART, has_rows=plan.has_rows)
    for date in _dates(root, plan, scope):
        if date not in skip:
            for ends in plan.slices_of(date, SLICE_FILES):
                yield Step(date, check_files, (date, *ends))
            yield Step(date, check_names, (date,))
    for area in BlobArea:
        if area.value not in skip:
            yield from _of_area(context, plan, area)
    if logs and context.is_whole and context.follows_names:
        yield Step(PLACES_PART, check_sums)
    if PLACES_PART not in skip:
        sizes = tuple((log.log, log.size) for log in logs)
        yield Step(PLACES_PART, check_places, (sizes,))


def _of_area(context: AuditContext, plan: AuditPlan, area: BlobArea) -> Iterator[Step]:
    part = area.value
    yield Step(part, check_area, (part,))
    for prefix in blob_folders(Path(context.root), area) if context.is_whole else ():
        yield Step(part, check_blob_folder, (part, prefix))
    if not context.follows_names:
        for ends in plan.slices_of_blobs(part, SLICE_BLOBS):
            yield Step(part, check_blob_names, ends)


def _dates(root: Path, plan: AuditPlan, scope: AuditScope) -> list[str]:
    if scope.dates is not None:
        return sorted(set(scope.dates))
    dates = set(plan.dates())
    if scope.run_ids is None:
        dates.update(dates_on_disk(root))
    for run_id in scope.run_ids or ():
        dates.update(dates_with(root, run_id))
    return sorted(dates)


def dates_with(root: Path, run_id: str) -> list[str]:
    """Return the dates in whose folder there is a file of the run."""
    name = f"{run_id}.json"
    return [date for date in dates_on_disk(root) if os.path.lexists(root / "runs" / date / name)]
