"""How a replay shows what it found, to a person and as JSON."""

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.broker.admin.topics import OffsetRange
from pipeline.broker.reading.log_holes import describe_holes
from pipeline.cli.options import moment_text
from pipeline.cli.views.terminal import note, print_json, print_table
from pipeline.recovery.replay.findings import DIFFERENCES, Finding
from pipeline.recovery.replay.plan import PlannedPartition, ReplayPlan
from pipeline.recovery.replay.restore import Restored
from pipeline.recovery.replay.verify import Verified

SHOWN_FINDINGS = 40
"""Most findings that a person is shown; JSON has all."""

PLAN_COLUMNS = (
    *("topic", "partition", "log", "read", "offsets", "first", "last"),
    *("committed", "stored to", "leaves to", "lost"),
)
_FINDING_COLUMNS = ("finding", "what", "path", "expected", "found", "record", "named by")
_FOREVER = -1
_HOUR_MS = 3_600_000


class FindingView:
    """Takes findings as they come: JSON is printed at once, a table at the end."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._kept: list[Finding] = []
        self._restored: list[Finding] = []
        self._count = 0

    def add(self, finding: Finding) -> None:
        """Take one more."""
        if self._as_json:
            print_json(finding.document())
            return
        self._count += 1
        # Apart, as what was restored of a lost store would push out the rest.
        kept = self._restored if finding.kind == "restored" else self._kept
        if len(kept) < SHOWN_FINDINGS:
            kept.append(finding)

    def show(self) -> None:
        """Print the table, if there is one."""
        shown = [*self._kept, *self._restored][:SHOWN_FINDINGS]
        if not shown:
            return
        print_table(_FINDING_COLUMNS, map(_finding_row, shown))
        if self._count > len(shown):
            note(f"{len(shown)} of {self._count:,} findings; --json names all")


def _finding_row(finding: Finding) -> list[str]:
    cells = (
        *(finding.kind, finding.what, finding.path, finding.expected),
        *(finding.found, finding.source, finding.named_by),
    )
    return [cell or "" for cell in cells]


def verified_summary(verified: Verified) -> dict[str, Any]:
    """Return the summary of a verification."""
    counts = verified.counts
    return {
        "command": "verify",
        **_counted(counts, ("records", "identical", "missing", "different")),
        # Not asked of a part: what it does not explain may be explained by another part.
        "foreign": counts.get("foreign", 0) if verified.foreign_asked else None,
        **_counted(counts, ("upload_missing", "internal_error", "waiting", "unreferenced")),
        "pending": verified.pending,
        "differs": verified.differs,
    }


def restored_summary(restored: Restored) -> dict[str, Any]:
    """Return the summary of a restore."""
    counts = restored.counts
    return {
        "command": "restore",
        **_counted(counts, ("records", "consumed", "restored", "intact", "missing", "different")),
        **_counted(counts, ("upload_missing", "internal_error", "waiting")),
        "pending": restored.pending,
        "differs": restored.differs,
        "store_root": restored.store_root,
    }


def _counted(counts: Mapping[str, int], names: tuple[str, ...]) -> dict[str, int]:
    return {name: counts.get(name, 0) for name in names}


def verified_line(verified: Verified) -> str:
    """Return the same for a person."""
    counts = verified.counts
    shown = [f"{counts.get('identical', 0):,} files identical", *_other_counts(counts)]
    if not verified.foreign_asked:
        shown.append("foreign files not asked for")
    return f"{counts.get('records', 0):,} records: {', '.join(shown)}{_pending(verified.pending)}"


def restored_lines(restored: Restored) -> Iterator[str]:
    """Yield the same for a person."""
    counts = restored.counts
    shown = [
        f"{counts.get('consumed', 0):,} consumed",
        f"{counts.get('restored', 0):,} files restored",
        f"{counts.get('intact', 0):,} files were there",
        *_other_counts(counts),
    ]
    yield f"{counts.get('records', 0):,} records: {', '.join(shown)}{_pending(restored.pending)}"
    if restored.store_root is not None:
        yield f"store root {restored.store_root}"
    else:
        yield "no store root: there is no ledger, or a file that is not as it was written"


def _other_counts(counts: Mapping[str, int]) -> Iterator[str]:
    words = {
        "missing": "missing",
        "different": "different",
        "foreign": "foreign",
        "upload_missing": "uploads missing",
        "internal_error": "that this program could not judge",
        "waiting": "links that the advise worker makes",
        "unreferenced": "uploads that nothing names",
    }
    assert words.keys() >= DIFFERENCES
    for kind, word in words.items():
        if counts.get(kind, 0):
            yield f"{counts[kind]:,} {word}"


def _pending(count: int) -> str:
    return f"; {count:,} offsets are not consumed yet and left to the workers" if count else ""


def plan_rows(plan: ReplayPlan) -> Iterator[list[str]]:
    """Yield a row for each partition that has anything to tell."""
    for each in plan.partitions:
        if not (each.count or each.log.end or each.lost):
            continue
        first, last = map(moment_text, each.times_ms) if each.times_ms else ("", "")
        yield [
            *(each.topic, str(each.partition), _range(each.log), _range(each.selected)),
            *(str(each.count), first, last, _number(each.committed), _number(each.position)),
            *(_number(each.leaves_to), _range(each.lost) if each.lost else ""),
        ]


def plan_documents(plan: ReplayPlan) -> Iterator[dict[str, Any]]:
    """Yield a document for each partition."""
    for each in plan.partitions:
        first, last = map(moment_text, each.times_ms) if each.times_ms else (None, None)
        yield {
            "topic": each.topic,
            "partition": each.partition,
            "log": _pair(each.log),
            "read": _pair(each.selected),
            "offsets": each.count,
            "first_utc": first,
            "last_utc": last,
            "committed": each.committed,
            "stored_to": each.position,
            "leaves_to": each.leaves_to,
            "lost": _pair(each.lost) if each.lost else None,
            "holes": [{"from": begin, "to": end} for begin, end in each.holes],
        }


def plan_summary(plan: ReplayPlan) -> dict[str, Any]:
    """Return the summary of a plan."""
    times = [each.times_ms for each in plan.partitions if each.times_ms]
    return {
        "command": "plan",
        "offsets": sum(each.count for each in plan.partitions),
        "first_utc": moment_text(min(first for first, _ in times)) if times else None,
        "last_utc": moment_text(max(last for _, last in times)) if times else None,
        "removed_by_retention": sum(each.log.beginning for each in plan.partitions),
        "lost": sum(_lost(each) for each in plan.partitions),
        "holes": sum(end - begin for each in plan.partitions for begin, end in each.holes),
        "retention_ms": dict(plan.retention_ms),
        "store_id": plan.store_id,
    }


def plan_lines(plan: ReplayPlan) -> Iterator[str]:
    """Yield what a person should know besides."""
    summary = plan_summary(plan)
    times = f", {summary['first_utc']} to {summary['last_utc']}" if summary["first_utc"] else ""
    yield f"{summary['offsets']:,} offsets{times}"
    if plan.store_id is None:
        yield "There is no store yet: rmos store init makes one."
    if summary["removed_by_retention"]:
        yield (
            f"Retention has removed {summary['removed_by_retention']:,} offsets; of those the "
            f"store lacks {summary['lost']:,}, which no replay brings back."
        )
    for each in plan.partitions:
        if each.holes:
            shown = describe_holes((each.topic, each.partition), list(each.holes))
            yield f"Records are gone from the middle of the log: {shown}."
    for topic, kept_ms in plan.retention_ms.items():
        if kept_ms != _FOREVER:
            yield (
                f"{topic} keeps its records for {kept_ms / _HOUR_MS:g} hours only: what is older "
                "cannot be restored. Set RMOS_REQUEST_RETENTION_MS to -1, and the topic's "
                "retention.ms."
            )


def _lost(each: PlannedPartition) -> int:
    return 0 if each.lost is None else each.lost.end - each.lost.beginning


def _range(offsets: OffsetRange) -> str:
    return f"{offsets.beginning}-{offsets.end}"


def _pair(offsets: OffsetRange) -> dict[str, int]:
    return {"from": offsets.beginning, "to": offsets.end}


def _number(value: int | None) -> str:
    return "" if value is None else str(value)
