"""How fast the persist worker is, beside what bounds it and what it replaces, in one run.

    python -m tests.bench.persist

The targets are printed and never asserted: on shared machines identical runs differ by 1.75, so
only ratios within one round mean something. `docs/benchmarks.md` describes the method.
"""

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from pipeline.broker.local.broker import LocalBroker
from pipeline.logs import mute_client_logging
from tests.bench.contender import BenchError
from tests.bench.race import DEFAULT, ENTRIES, entries_of, race
from tests.bench.report import print_growth, print_latency, print_race, print_ratios
from tests.bench.soak import measure_growth, measure_latency

LATENCY_RATE = 100.0


def main() -> None:
    options = _options()
    mute_client_logging()
    folder = Path(tempfile.mkdtemp(prefix="rmos-bench-", dir=options.folder))
    try:
        found = _measure(options, folder)
    except BenchError as error:
        sys.exit(f"Error: {error}")
    finally:
        # Not between the rounds: after many deletes this kind of disk is slow for minutes.
        if options.keep:
            _tell(f"kept {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    with LocalBroker(folder / "kafka", port=0, on_progress=_tell) as broker:
        return asyncio.run(_measure_all(options, broker, folder))


async def _measure_all(
    options: argparse.Namespace, broker: LocalBroker, folder: Path
) -> dict[str, Any]:
    console = Console(width=120)
    found: dict[str, Any] = {"records": options.records}
    if options.rounds:
        results = await race(
            broker,
            folder,
            entries_of(options.only, folder, options.against, _tell),
            rounds=options.rounds,
            records=options.records,
            random_dates=options.random_dates,
            patience_seconds=options.patience,
            tell=_tell,
        )
        print_race(console, results)
        print_ratios(console, results)
        found["race"] = [asdict(result) for result in results]
    if options.latency:
        latency = await measure_latency(broker, folder, rate=LATENCY_RATE, seconds=options.latency)
        print_latency(console, latency)
        found["latency_ms"] = asdict(latency)
    if options.growth:
        steps, pairs = await measure_growth(
            broker,
            folder,
            runs=options.growth,
            step=options.records,
            turns=options.turns,
            random_dates=options.random_dates,
            ordered_ids=options.ordered_ids,
            tell=_tell,
        )
        print_growth(console, steps, pairs)
        found["growth"] = [asdict(step) for step in steps]
        found["turns"] = [[asdict(each) for each in pair] for pair in pairs]
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.persist", description="Measure the persist worker."
    )
    parser.add_argument("--records", type=int, default=20_000, help="records of one run or step")
    parser.add_argument("--rounds", type=int, default=5, help="0 for none")
    parser.add_argument(
        "--only",
        type=_names,
        default=DEFAULT,
        metavar="NAME,...",
        help=f"contenders, of {', '.join(ENTRIES)}",
    )
    parser.add_argument("--latency", type=float, default=20.0, metavar="SECONDS", help="0 for none")
    parser.add_argument(
        "--patience",
        type=float,
        default=15.0,
        metavar="SECONDS",
        help="longest wait before each run for the machine to be quiet",
    )
    parser.add_argument(
        "--growth",
        type=int,
        default=0,
        metavar="RUNS",
        help="let one worker take so many, in steps of --records; 0 for none",
    )
    parser.add_argument(
        "--turns", type=int, default=5, help="of the grown store and a new one, behind --growth"
    )
    parser.add_argument(
        "--against",
        metavar="RMOS",
        help="the rmos of another checkout, whose worker takes turns with ours",
    )
    parser.add_argument(
        "--random-dates",
        action="store_true",
        help="times of the requests out of order over ten dates, as a migration has them",
    )
    parser.add_argument(
        "--ordered-ids",
        action="store_true",
        help="run_ids in the order of arrival, as those that we make, behind --growth",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every number here")
    parser.add_argument("--folder", type=Path, help="where the one temporary folder is made")
    parser.add_argument("--keep", action="store_true", help="remove nothing at the end")
    return parser.parse_args()


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    unknown = [name for name in names if name not in ENTRIES]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]} is none of {', '.join(ENTRIES)}")
    return names


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
