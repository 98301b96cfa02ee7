"""What the benchmark prints: one table, the ratios within each round, and the targets."""

from collections.abc import Callable, Sequence
from statistics import median

from rich.console import Console
from rich.table import Table

from tests.bench.race import ENTRIES, Result
from tests.bench.soak import Latency, Memory

RATIOS = (
    ("worker", "bare", "c/b", "≥ 0.85"),
    ("worker", "disk", "c/a", "≥ 0.25, better 0.5"),
    ("worker", "tutorial", "c/d", "≥ 3"),
    ("unlogged", "worker", "c0/c: time with the ledger, by time without", "≤ 1.15"),
)


def print_race(console: Console, results: Sequence[Result]) -> None:
    """Print a line for each contender."""
    table = Table(title="From the start line to the last event; medians over the rounds")
    for column in (
        "",
        "records/s",
        "min to max",
        "CPU us/record",
        "user",
        "system",
        "RSS MB",
        "others",
    ):
        table.add_column(column, justify="left" if not column else "right")
    for name in dict.fromkeys(result.name for result in results):
        own = [result for result in results if result.name == name]
        rates = [result.rate for result in own]
        table.add_row(
            ENTRIES[name].title,
            f"{median(rates):,.0f}",
            f"{min(rates):,.0f} to {max(rates):,.0f}",
            _median(own, lambda result: result.cpu_us),
            _median(own, lambda result: result.cpu.user / result.records * 1e6),
            _median(own, lambda result: result.cpu.system / result.records * 1e6),
            _median(own, lambda result: result.peak_rss_mb),
            f"{median(result.others for result in own):.2f}",
        )
    console.print(table)
    console.print("CPU us: user and system. RSS: the peak. Others: cores busy for somebody else.")


def print_ratios(console: Console, results: Sequence[Result]) -> None:
    """Print the ratios, each of two runs of the same round."""
    table = Table(title="Ratios of records/s, within each round")
    for column in ("", "median", "rounds", "target"):
        table.add_column(column)
    for over, under, title, target in RATIOS:
        found = ratios(results, over, under)
        if found:
            each = "  ".join(f"{ratio:.2f}" for ratio in found)
            table.add_row(title, f"{median(found):.2f}", each, target)
    console.print(table)


def ratios(results: Sequence[Result], over: str, under: str) -> list[float]:
    """Return the ratio of two contenders for each round in which both ran."""
    rates = {(result.name, result.round): result.rate for result in results}
    numbers = sorted({result.round for result in results})
    return [
        rates[over, number] / rates[under, number]
        for number in numbers
        if (over, number) in rates and (under, number) in rates
    ]


def print_latency(console: Console, found: Latency) -> None:
    """Print the latency and its targets."""
    console.print(
        f"Publish to event at {found.rate:g}/s, {found.count:,} requests on a fixed schedule: "
        f"p50 {found.p50:.1f} ms (target ≤ 60), p99 {found.p99:.1f} ms (≤ 250), "
        f"max {found.worst:.1f} ms"
    )


def print_memory(console: Console, found: Memory) -> None:
    """Print the memory and its target."""
    console.print(
        f"Memory over {found.records:,} records at {found.rate:,.0f}/s: first quarter "
        f"{found.first:.0f} MB, last {found.last:.0f} MB, peak {found.peak:.0f} MB "
        "(target: flat, < 250)"
    )


def _median(results: Sequence[Result], value: Callable[[Result], float]) -> str:
    return f"{median(value(result) for result in results):,.0f}"
