"""The output of a replay, for people and as JSON."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pipeline.broker.admin.topics import OffsetRange
from pipeline.broker.reading.log_holes import describe_holes
from pipeline.cli.options import moment_text
from pipeline.cli.views.terminal import counted, note, print_json, print_table
from pipeline.recovery.replay.findings import DIFFERENCES, Finding
from pipeline.recovery.replay.plan import ReplayPlan
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


@contextmanager
def shown_findings(*, as_json: bool) -> Iterator[Callable[[Finding], None]]:
    """Print the findings of a block: JSON at once, for a person a table of the first at its end."""
    if as_json:
        yield lambda finding: print_json(finding.document())
        return
    count = 0
    # Two lists, as what was restored of a lost store would push out the rest.
    wrong: list[Finding] = []
    restored: list[Finding] = []

    def keep(finding: Finding) -> None:
        nonlocal count
        count += 1
        kept = restored if finding.kind == "restored" else wrong
        if len(kept) < SHOWN_FINDINGS:
            kept.append(finding)

    yield keep
    shown = [*wrong, *restored][:SHOWN_FINDINGS]
    if shown:
        print_table(_FINDING_COLUMNS, map(_finding_row, shown))
    if count > len(shown):
        note(f"{len(shown)} of {count:,} findings; --json names all")


def _finding_row(finding: Finding) -> list[str]:
    cells = (
        *(finding.kind, finding.what, finding.path, finding.expected),
        *(finding.found, finding.source, finding.named_by),
    )
    return [cell or "" for cell in cells]


def verified_summary(verified: Verified) -> dict[str, Any]:
    """Return the summary of a verification."""
    counts = Counter(verified.counts)
    return {
        "command": "verify",
        **{name: counts[name] for name in ("records", "identical", "missing", "different")},
        # Not asked of a part: what it does not explain may be explained by another part.
        "foreign": counts["foreign"] if verified.foreign_asked else None,
        **{name: counts[name] for name in ("upload_missing", "internal_error")},
        **{name: counts[name] for name in ("waiting", "unreferenced")},
        **({"archived": counts["archived"]} if counts["archived"] else {}),
        "pending": verified.pending,
        "differs": verified.differs,
    }


def restored_summary(restored: Restored) -> dict[str, Any]:
    """Return the summary of a restore."""
    counts = Counter(restored.counts)
    names = (
        *("records", "consumed", "restored", "intact", "missing", "different"),
        *("upload_missing", "internal_error", "waiting"),
    )
    return {
        "command": "restore",
        **{name: counts[name] for name in names},
        "pending": restored.pending,
        "differs": restored.differs,
        "store_root": restored.store_root,
    }


def verified_lines(verified: Verified) -> Iterator[str]:
    """Yield what a person is shown of a verification."""
    identical = f"{counted(verified.counts.get('identical', 0), 'file')} identical"
    part = () if verified.foreign_asked else ("foreign files not looked for",)
    yield _line(verified, identical, after=part)


def restored_lines(restored: Restored) -> Iterator[str]:
    """Yield what a person is shown of a restore."""
    counts = Counter(restored.counts)
    yield _line(
        restored,
        f"{counts['consumed']:,} consumed",
        f"{counted(counts['restored'], 'file')} restored",
        f"{counts['intact']:,} intact",
    )
    if restored.store_root is not None:
        yield f"store root {restored.store_root}"
    else:
        yield "no store root: there is no ledger, or a file that is not as it was written"


def _line(found: Verified | Restored, *words: str, after: tuple[str, ...] = ()) -> str:
    records = counted(found.counts.get("records", 0), "record")
    said = ", ".join((*words, *_findings(found.counts), *after))
    pending = (
        f"; not consumed yet, so left to the workers: {counted(found.pending, 'offset')}"
        if found.pending
        else ""
    )
    return f"{records}: {said}{pending}"


def _findings(counts: Mapping[str, int]) -> Iterator[str]:
    words = {
        "missing": "missing",
        "different": "different",
        "foreign": "foreign",
        "upload_missing": "upload{s} missing",
        "internal_error": "that this program could not judge",
        "waiting": "link{s} that the advise worker makes",
        "unreferenced": "upload{s} that nothing names",
        "archived": "archived",
    }
    assert words.keys() >= DIFFERENCES
    for kind, word in words.items():
        if count := counts.get(kind):
            yield f"{count:,} {word.format(s='' if count == 1 else 's')}"


def plan_rows(plan: ReplayPlan) -> Iterator[list[str]]:
    """Yield a row for each partition that has anything to show."""
    for document in plan_documents(plan):
        if document["offsets"] or document["log"]["to"] or document["lost"]:
            yield [_cell(value) for value in document.values()][: len(PLAN_COLUMNS)]


def _cell(value: object) -> str:
    if isinstance(value, dict):
        return f"{value['from']}-{value['to']}"
    return "" if value is None else str(value)


def plan_documents(plan: ReplayPlan) -> Iterator[dict[str, Any]]:
    """Yield a document for each partition; its values are in the order of the columns."""
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


def _pair(offsets: OffsetRange) -> dict[str, int]:
    return {"from": offsets.beginning, "to": offsets.end}


def plan_summary(plan: ReplayPlan) -> dict[str, Any]:
    """Return the summary of a plan."""
    times = [each.times_ms for each in plan.partitions if each.times_ms]
    lost = [each.lost for each in plan.partitions if each.lost]
    return {
        "command": "plan",
        "offsets": sum(each.count for each in plan.partitions),
        "first_utc": moment_text(min(first for first, _ in times)) if times else None,
        "last_utc": moment_text(max(last for _, last in times)) if times else None,
        "removed_by_retention": sum(each.log.beginning for each in plan.partitions),
        "lost": sum(each.end - each.beginning for each in lost),
        "holes": sum(end - begin for each in plan.partitions for begin, end in each.holes),
        "retention_ms": dict(plan.retention_ms),
        "store_id": plan.store_id,
    }


def plan_lines(plan: ReplayPlan) -> Iterator[str]:
    """Yield what a person should know besides."""
    summary = plan_summary(plan)
    times = f", {summary['first_utc']} to {summary['last_utc']}" if summary["first_utc"] else ""
    yield f"{counted(summary['offsets'], 'offset')}{times}"
    if plan.store_id is None:
        yield "There is no store yet: rmos store init makes one."
    if summary["removed_by_retention"]:
        yield (
            f"Retention has removed {counted(summary['removed_by_retention'], 'offset')}; of those "
            f"the store lacks {summary['lost']:,}, which no replay brings back."
        )
    for each in plan.partitions:
        if each.holes:
            holes = describe_holes((each.topic, each.partition), list(each.holes))
            yield f"Records are gone from the middle of the log: {holes}."
    for topic, kept_ms in plan.retention_ms.items():
        if kept_ms != _FOREVER:
            yield (
                f"{topic} keeps its records for {kept_ms / _HOUR_MS:g} hours only: what is older "
                "cannot be restored. Set RMOS_REQUEST_RETENTION_MS to -1, and the topic's "
                "retention.ms."
            )
