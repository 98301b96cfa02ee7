"""What the benchmark prints: one table, the ratios within each round, and the targets."""

from collections.abc import Callable, Mapping, Sequence
from statistics import median

from rich.console import Console
from rich.table import Table

from tests.bench.race import Result
from tests.bench.soak import Latency

RATES = (
    ("worker", "bare", "c/b", "≥ 0.85"),
    ("worker", "disk", "c/a", "≥ 0.38, better 0.5"),
    ("worker", "tutorial", "c/d", "≥ 3"),
    ("worker", "go", "c/e", "-"),
    ("worker", "go-fsync", "c/f", "≥ 2"),
    ("worker", "against", "c/c1", "-"),
    *((f"shared-{n}", "worker", f"s{n}/c", "-") for n in (1, 2, 3)),
    ("unlogged", "worker", "c0/c: time with the ledger, by time without", "≤ 1.15"),
)
CPU = (
    ("worker", "against", "c/c1", "≤ 0.60, to commit 8bd82dd"),
    ("shared-1", "worker", "s1/c", "-"),
    ("worker", "bare", "c/b", "-"),
    ("worker", "go", "c/e", "-"),
    ("worker", "go-fsync", "c/f", "-"),
)
FLAT = "within 5 %"


def print_race(console: Console, results: Sequence[Result]) -> None:
    """Print a line for each contender."""
    _print_runs(
        console,
        "From the start line to the last event; medians over the rounds",
        {
            own[0].title: own
            for name in dict.fromkeys(result.name for result in results)
            if (own := [result for result in results if result.name == name])
        },
    )


def print_growth(
    console: Console, steps: Sequence[Result], pairs: Sequence[tuple[Result, Result]]
) -> None:
    """Print a line for each step of one worker, and what its last steps are to a new store's."""
    _print_runs(
        console,
        "One worker, step by step: runs in the store after each",
        {f"{step.records * step.round:,}": [step] for step in steps},
    )
    if pairs:
        new, grown = zip(*pairs, strict=True)
        _print_runs(console, "In turns", {"a new store": new, "the grown store": grown})
        for figure, ratios in (
            ("CPU", [b.cpu_us / a.cpu_us for a, b in pairs]),
            ("records/s", [b.rate / a.rate for a, b in pairs]),
        ):
            each = " ".join(f"{ratio:.2f}" for ratio in ratios)
            console.print(
                f"The grown store to a new one: {figure} {median(ratios):.2f} ({FLAT}; {each})"
            )
    console.print(f"Peak RSS {steps[-1].peak_rss_mb:.0f} MB (≤ 250, flat)")


def _print_runs(console: Console, title: str, rows: Mapping[str, Sequence[Result]]) -> None:
    table = Table(title=title)
    for column in (
        *("", "records/s", "min to max", "CPU us/record", "user", "system"),
        *("KiB/record", "RSS MB", "others"),
    ):
        table.add_column(column, justify="left" if not column else "right")
    for name, own in rows.items():
        rates = [result.rate for result in own]
        table.add_row(
            name,
            f"{median(rates):,.0f}",
            f"{min(rates):,.0f} to {max(rates):,.0f}",
            _median(own, lambda result: result.cpu_us),
            _median(own, lambda result: result.cpu.user / result.records * 1e6),
            _median(own, lambda result: result.cpu.system / result.records * 1e6),
            _median(own, lambda result: result.written_kb / result.records),
            _median(own, lambda result: result.peak_rss_mb),
            f"{median(result.others for result in own):.2f}",
        )
    console.print(table)
    console.print(
        "CPU us: user and system. KiB: given to the disk. RSS: the peak so far. Others: cores busy "
        "for somebody else."
    )


def print_ratios(console: Console, results: Sequence[Result]) -> None:
    """Print the ratios, each of two runs of the same round."""
    for title, pairs, value in (
        ("Ratios of records/s, within each round", RATES, lambda result: result.rate),
        ("Ratios of CPU a record, within each round", CPU, lambda result: result.cpu_us),
    ):
        table = Table(title=title)
        for column in ("", "median", "rounds", "target"):
            table.add_column(column)
        for over, under, name, target in pairs:
            if found := ratios(results, over, under, value):
                each = "  ".join(f"{ratio:.2f}" for ratio in found)
                table.add_row(name, f"{median(found):.2f}", each, target)
        if table.row_count:
            console.print(table)


def ratios(
    results: Sequence[Result], over: str, under: str, value: Callable[[Result], float]
) -> list[float]:
    """Return the ratio of a value of two contenders for each round in which both ran."""
    values = {(result.name, result.round): value(result) for result in results}
    numbers = sorted({result.round for result in results})
    return [
        values[over, number] / values[under, number]
        for number in numbers
        if (over, number) in values and (under, number) in values
    ]


def print_latency(console: Console, found: Latency) -> None:
    """Print the latency and its targets."""
    console.print(
        f"Publish to event at {found.rate:g}/s, {found.count:,} requests on a fixed schedule: "
        f"p50 {found.p50:.1f} ms (target ≤ 20), p99 {found.p99:.1f} ms (≤ 60), "
        f"max {found.worst:.1f} ms"
    )


def _median(results: Sequence[Result], value: Callable[[Result], float]) -> str:
    return f"{median(value(result) for result in results):,.0f}"
