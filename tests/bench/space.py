"""Bytes and inodes that a record costs: `python -m tests.bench.space --records 5000`.

A broker, topics and a store for each kind of record, consumed by the real workers; what stands on
the disk afterwards, less what an unused store and broker take, divided by the number of records.
Printed as the table of `docs/operations.md`.
"""

import argparse
import asyncio
import os
import tempfile
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from pipeline.app.advise import advise_worker
from pipeline.app.persist import persist_worker
from pipeline.broker.admin.groups import committed_offsets
from pipeline.broker.admin.topics import partition_offsets
from pipeline.broker.local.broker import LocalBroker
from pipeline.settings import Settings
from tests.builders import advisory_request, attachment, red_request, run_request
from tests.docs.tables import markdown_table
from tests.e2e.kafka_reading import (
    Sending,
    new_settings,
    produce,
    sending,
    topics_and_store,
    wait_until,
)

LEDGER, INDEX, FILES = "ledger", "index.sqlite3", ("runs", "attachments", "quarantine")
COLUMNS = ("record", "request", "files", "inodes", "bytes", "on disk", "ledger", "index", "Kafka")


@dataclass(frozen=True, slots=True)
class Space:
    """What is below a folder.

    Attributes:
        size_bytes: As files are long.
        disk_bytes: As the file system counts blocks.
        files: Regular files, each an inode.
    """

    size_bytes: int = 0
    disk_bytes: int = 0
    files: int = 0

    def __add__(self, other: "Space") -> "Space":
        return Space(
            self.size_bytes + other.size_bytes,
            self.disk_bytes + other.disk_bytes,
            self.files + other.files,
        )


def space_below(paths: Iterable[Path]) -> Space:
    found = Space()
    for path in paths:
        each = [path] if path.is_file() else (p for p in path.rglob("*") if p.is_file())
        for file in each:
            state = file.stat()
            found += Space(state.st_size, state.st_blocks * 512, 1)
    return found


def run_of(number: int) -> Sending:
    return sending(run_request(run_id=f"run_{number}"))


def blocked(number: int) -> Sending:
    return sending(red_request(run_id=f"run_{number}"))


def with_blob(number: int) -> Sending:
    content = f"{number:010}".encode() * 1024
    return sending(run_request(run_id=f"run_{number}", attachments=[attachment(content)]))


def duplicate(number: int) -> Sending:
    del number
    return sending(run_request())


def rejected(number: int) -> Sending:
    # One in three, so that the reject limit is not reached; the runs of the others are taken off.
    return run_of(number) if number % 3 else Sending(f"bad_{number}".encode(), b"{" * 1000)


def advisory(number: int) -> Sending:
    return sending(advisory_request(run_id=f"run_{number}"))


KINDS: dict[str, Callable[[int], Sending]] = {
    "run, OK, 1.4 KB": run_of,
    "run, BLOCKED": blocked,
    "run with a blob of 10 KB": with_blob,
    "duplicate": duplicate,
}


@dataclass(frozen=True, slots=True)
class Measured:
    """What all records of one kind take."""

    request_bytes: float
    files: Space
    ledger: Space
    index: Space
    kafka: Space

    def less(self, other: "Measured", count: int) -> list[str]:
        """Return the cells of the table: the difference for each of `count` records."""

        def each(name: str, of: str) -> float:
            ours, theirs = getattr(self, name), getattr(other, name)
            return float((getattr(ours, of) - getattr(theirs, of)) / count)

        return [
            f"{self.request_bytes:,.0f}",
            f"{each('files', 'files'):.2f}",
            f"{each('files', 'files') + each('ledger', 'files'):.2f}",
            f"{each('files', 'size_bytes'):,.0f}",
            f"{each('files', 'disk_bytes'):,.0f}",
            f"{each('ledger', 'size_bytes'):,.0f}",
            f"{each('index', 'size_bytes'):,.0f}",
            f"{each('kafka', 'size_bytes'):,.0f}",
        ]


async def consumed(settings: Settings, group: str, topic: str) -> bool:
    ends = await partition_offsets(settings, [topic])
    done = await committed_offsets(settings, group, [topic])
    return all(done.get(place, 0) >= log.end for place, log in ends.items())


async def measure(broker: LocalBroker, folder: Path, batches: list[list[Sending]]) -> Measured:
    """Consume all batches, runs first and then advisories, and look at the disk."""
    settings = new_settings(broker, folder / "store", ledger_key_file=folder / "key.pem")
    topics = settings.topics
    async with topics_and_store(broker, settings):
        targets = (
            (topics.run_requests, topics.persist_group, persist_worker),
            (topics.advisory_requests, topics.advise_group, advise_worker),
        )
        for batch, (topic, group, worker) in zip(batches, targets, strict=False):
            await produce(settings, batch, topic=topic)
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(worker(settings))
                await wait_until(
                    lambda group=group, topic=topic: consumed(settings, group, topic),  # type: ignore[misc]
                    "consumed",
                    seconds=600,
                )
        root = settings.data_dir
        logs = broker._folder.root.rglob(f"{settings.prefix}.*/*.log")
        sent = [len(each.value or b"") for each in batches[-1]]
        return Measured(
            sum(sent) / max(len(sent), 1),
            space_below(root / name for name in FILES),
            space_below([root / LEDGER]),
            space_below(root.glob(f"{INDEX}*")),
            space_below(logs),
        )


async def table(records: int, folder: Path) -> str:
    rows = []
    with LocalBroker(folder / "kafka", port=0) as broker:
        numbers = range(records)
        empty = await measure(broker, folder / "empty", [[run_of(records)]])
        runs = await measure(broker, folder / "runs", [[run_of(n) for n in numbers]])
        for position, (name, make) in enumerate(KINDS.items()):
            found = await measure(broker, folder / str(position), [[make(n) for n in numbers]])
            rows.append([name, *found.less(empty, records)])
        two_thirds = [run_of(n) for n in numbers if n % 3]
        base = await measure(broker, folder / "base", [two_thirds])
        third = await measure(broker, folder / "third", [[rejected(n) for n in numbers]])
        rows.append(["rejected", *third.less(base, records - len(two_thirds))])
        linked = await measure(
            broker,
            folder / "linked",
            [[run_of(n) for n in numbers], [advisory(n) for n in numbers]],
        )
        rows.append(["advisory with its text", *linked.less(runs, records)])
    return markdown_table(COLUMNS, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=5000)
    options = parser.parse_args()
    os.environ["RMOS_LOG_LEVEL"] = "error"
    with tempfile.TemporaryDirectory(prefix="rmos-space-") as folder:
        print(asyncio.run(table(options.records, Path(folder))))


if __name__ == "__main__":
    main()
