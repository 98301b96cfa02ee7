"""The first part of an audit: all logs, read by several processes and put together in order."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.core.audit_finding import Finding
from pipeline.storage.audit_leaves import read_bundles
from pipeline.storage.audit_logs import AuditedLog, LogCheck
from pipeline.storage.audit_plan import AuditPlan
from pipeline.storage.audit_pool import StepPool
from pipeline.storage.audit_step import Step


def check_logs(
    root: Path, logs: Sequence[AuditedLog], plan: AuditPlan, pool: StepPool, part: str
) -> Iterator[Finding]:
    """Read every leaf of `logs` into the plan; yield what is wrong with them.

    The steps of all logs are one line: the end of one log holds nothing up.
    """
    checks = {log.log: (LogCheck(root, log, plan), list(log.ranges())) for log in logs}
    steps = (
        Step(part, read_bundles, (log.log, log.size, first))
        for log in logs
        for first in log.ranges()
    )
    for log in logs:
        if not log.size:
            yield from checks[log.log][0].finish()
    for step, found in pool.run(steps):
        check, left = checks[step.arguments[0]]
        yield from check.add(found)
        left.pop()
        if not left:
            yield from check.finish()
