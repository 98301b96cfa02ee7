"""The first part of an audit: all logs, read by several processes and put together in order."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.audit.checks.leaves import read_bundles
from pipeline.audit.checks.logs import AuditedLog, LogCheck
from pipeline.audit.plan import AuditPlan
from pipeline.audit.pool import StepPool
from pipeline.audit.rules.finding import Finding
from pipeline.audit.step import Step


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
