"""The race: each contender runs once in every round, one after the other, from a start line."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    ExitStack,
    closing,
    contextmanager,
    nullcontext,
)
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import SecretStr

from pipeline.broker.local.broker import LocalBroker
from pipeline.core.store.log_store import LEDGER_FOLDER
from pipeline.storage.store import open_to_read
from tests.bench.contender import BenchError, Contender, Cpu, cpu_of
from tests.bench.lane import (
    EventCounter,
    Lane,
    SaidCounter,
    make_lane,
    start_line,
    wait_until_joined,
)
from tests.bench.requests import encoded_requests

BIN = Path(sys.executable).parent
REPOSITORY = Path(__file__).resolve().parents[2]
DISK_SECONDS = 300.0
WARM_RECORDS = 1000
GO_PEER = "go_peer"
"""Its folder, and the word in a command in whose place the built program comes."""

QUIET_PERCENT = 15.0
"""The machine counts as quiet below this, of all its cores together."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One contender of the race.

    Attributes:
        name: What tables call it.
        title: What it is, in a few words.
        command: How it is started.
        share: Part of the records that it gets, as a slow one would take the whole time.
        changes: Environment of its own.
        has_events: Whether it publishes an event for each record; one without says its count.
        has_ledger: Whether it keeps a ledger.
        hosts: How many workers share one store in a bucket; 0 for a store on the disk.
    """

    name: str
    title: str
    command: tuple[str, ...]
    share: float = 1.0
    changes: tuple[tuple[str, str], ...] = ()
    has_events: bool = True
    has_ledger: bool = True
    hosts: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """One run of one contender, from the start line to its last event.

    Attributes:
        broker_cpu_seconds: CPU time of the broker meanwhile.
        others: Cores that neither contender nor broker kept busy meanwhile, but others did.
        written_kb: KiB that it gave to the disk meanwhile.
    """

    name: str
    title: str
    round: int
    records: int
    seconds: float
    cpu: Cpu
    peak_rss_mb: float
    broker_cpu_seconds: float
    others: float
    written_kb: float

    @property
    def rate(self) -> float:
        """Records a second."""
        return self.records / self.seconds

    @property
    def cpu_us(self) -> float:
        """CPU microseconds a record, user and system."""
        return self.cpu.total / self.records * 1e6


def wait_for_quiet(patience_seconds: float) -> None:
    """Wait until the machine has little else to do, but no longer than `patience_seconds`."""
    deadline = time.monotonic() + patience_seconds
    while time.monotonic() < deadline and psutil.cpu_percent(interval=0.5) > QUIET_PERCENT:
        pass


class Watch:
    """What contender, broker and everybody else cost between a start line and now."""

    def __init__(self, contender: Contender, broker: LocalBroker) -> None:
        self._contender = contender
        self._broker_pid = broker.pid or os.getpid()
        self._since = time.monotonic()
        self._written_kb = contender.written_kb()
        self._before = self._now()

    def result(self, entry: Entry, number: int, records: int, seconds: float) -> Result:
        """Return what was measured; `seconds` is the time to the last event."""
        elapsed = time.monotonic() - self._since
        own, broker, busy = (
            after - before for after, before in zip(self._now(), self._before, strict=True)
        )
        return Result(
            entry.name,
            entry.title,
            number,
            records,
            seconds,
            Cpu(own.user, own.system),
            self._contender.peak_rss_mb(),
            broker.total,
            max(0.0, busy.total - own.total - broker.total) / elapsed,
            self._contender.written_kb() - self._written_kb,
        )

    def _now(self) -> tuple[Cpu, Cpu, Cpu]:
        machine = psutil.cpu_times()
        busy = Cpu(machine.user + machine.nice, machine.system + machine.irq + machine.softirq)
        return self._contender.cpu(), cpu_of(self._broker_pid), busy


def _python(module: str) -> tuple[str, ...]:
    return (sys.executable, "-m", f"tests.bench.{module}")


def _worker(name: str, title: str, rmos: str = str(BIN / "rmos"), **changes: str) -> Entry:
    return Entry(name, title, (rmos, "worker", "persist"), changes=tuple(changes.items()))


def _sharing(hosts: int) -> Entry:
    each = f'for _ in $(seq {hosts}); do {BIN / "rmos"} worker persist & all="$all $!"; done'
    # The first wait ends by the signal, the second with the workers.
    command = ("/bin/sh", "-c", f"{each}; trap 'kill $all' TERM; wait; wait")
    title = f"s{hosts}. versitygw and PostgreSQL 18, workers: {hosts}"
    return Entry(f"shared-{hosts}", title, command, share=0.5, hosts=hosts)


WORKER = _worker("worker", "c. rmos worker persist")
ENTRIES = {
    entry.name: entry
    for entry in (
        Entry("disk", "a. disk ceiling: group commit alone", _python("disk_ceiling")),
        Entry("bare", "b. bare aiokafka loop, same core", _python("bare_loop")),
        WORKER,
        _worker(
            "traced",
            "c2. the same, batches reported to a collector",
            # `python -m tests.e2e.trace_collector` runs one.
            OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:4318",
        ),
        replace(
            _worker("unlogged", "c0. the same without a ledger", RMOS_LEDGER_ENABLED="false"),
            has_ledger=False,
        ),
        Entry(
            "tutorial",
            "d. FastStream as its tutorial teaches",
            (str(BIN / "faststream"), "run", "tests.bench.tutorial:app"),
            share=0.2,
            has_ledger=False,
        ),
        Entry(
            "go",
            "e. Go loop, nothing flushed",
            (GO_PEER,),
            has_events=False,
            has_ledger=False,
        ),
        Entry(
            "go-fsync",
            "f. Go loop, fsync each",
            (GO_PEER, "fsync"),
            share=0.2,
            has_events=False,
            has_ledger=False,
        ),
        Entry(
            "bare-serial",
            "b'. bare loop, one process, in turns",
            _python("bare_loop"),
            changes=(("RMOS_JUDGE_IN_CHILD_PROCESS", "false"),),
        ),
        _worker(
            "worker-serial",
            "c'. rmos worker persist, one process",
            RMOS_JUDGE_IN_CHILD_PROCESS="false",
        ),
        *map(_sharing, (1, 2, 3)),
    )
}
DEFAULT = ("disk", "bare", "unlogged", "worker", "tutorial", "go", "go-fsync")


def entries_of(
    names: Sequence[str], folder: Path, against: str | None, tell: Callable[[str], None]
) -> list[Entry]:
    """Return the contenders of these names that can run here.

    Args:
        names: Of `ENTRIES`.
        folder: Where the Go program is built.
        against: The `rmos` of another checkout, whose worker runs after ours; None for none.
        tell: Called with the reason where one is left out.
    """
    found = [ENTRIES[name] for name in names]
    if against is not None:
        other = _worker("against", "c1. the same of another checkout", against)
        found.insert(found.index(WORKER) + 1 if WORKER in found else len(found), other)
    if any(GO_PEER in entry.command for entry in found):
        peer, reason = _built_go_peer(folder)
        if peer is None:
            tell(f"without the Go loops: {reason}")
            return [entry for entry in found if GO_PEER not in entry.command]
        found = [
            replace(
                entry, command=tuple(peer if word == GO_PEER else word for word in entry.command)
            )
            for entry in found
        ]
    return found


def _built_go_peer(folder: Path) -> tuple[str | None, str]:
    """Return the built program, or None and the reason why there is none."""
    go = shutil.which("go")
    if go is None:
        return None, "there is no go on the path"
    target = str(folder / GO_PEER)
    source = Path(__file__).with_name(GO_PEER)
    done = subprocess.run(
        [go, "build", "-o", target, "."], cwd=source, capture_output=True, text=True, check=False
    )
    return (target, "") if done.returncode == 0 else (None, done.stderr.strip())


async def race(
    broker: LocalBroker,
    folder: Path,
    entries: Sequence[Entry],
    *,
    rounds: int,
    records: int,
    random_dates: bool = False,
    patience_seconds: float,
    tell: Callable[[str], None],
) -> list[Result]:
    """Run every round; return one result for each contender and round."""
    requests = list(encoded_requests(records, random_dates=random_dates))
    results = []
    with ExitStack() as stack:
        shared = stack.enter_context(_shared(folder)) if any(e.hosts for e in entries) else None
        for number in range(1, rounds + 1):
            for entry in entries:
                mine = requests[: max(1, int(records * entry.share))]
                if entry.name == "disk":
                    result = _run_disk(broker, folder, entry, number, len(mine), patience_seconds)
                else:
                    place = shared(f"{entry.name}-{number}") if shared and entry.hosts else None
                    result = await _run_consumer(
                        broker, folder, entry, number, mine, patience_seconds, place
                    )
                tell(
                    f"round {number} {entry.name}: {result.rate:,.0f}/s, "
                    f"{result.cpu_us:,.0f} us CPU, others {result.others:.2f} cores"
                )
                results.append(result)
    return results


@contextmanager
def _shared(folder: Path) -> Iterator[Callable[[str], dict[str, Any]]]:
    """Run what hosts share; give what returns the settings of a new store in it."""
    from tests.bucket.servers import BUCKET, point_at, versitygw_server
    from tests.postgres.servers import running

    try:
        with (
            pytest.MonkeyPatch.context() as patch,
            versitygw_server(folder / "s3" / "root") as address,
            running("18") as server,
        ):
            point_at(patch, address)
            yield lambda name: {
                "store_url": f"s3://{BUCKET}/{name}",
                "index_url": SecretStr(server.new_database()),
            }
    except pytest.skip.Exception as error:
        raise BenchError(str(error)) from error


def _run_disk(
    broker: LocalBroker,
    folder: Path,
    entry: Entry,
    number: int,
    records: int,
    patience_seconds: float,
) -> Result:
    name = f"disk-{number}"
    command = (*entry.command, str(folder / name), str(records))
    environment = Lane.inherited_environment()
    with Contender(command, environment, folder / f"{name}.log") as contender:
        contender.wait_for("ready")
        wait_for_quiet(patience_seconds)
        watch = Watch(contender, broker)
        contender.say("go")
        contender.wait_for("}", DISK_SECONDS)
        seconds = json.loads(contender.text.splitlines()[-1])["seconds"]
        result = watch.result(entry, number, records, seconds)
        contender.say("done")
    return result


async def _run_consumer(
    broker: LocalBroker,
    folder: Path,
    entry: Entry,
    number: int,
    requests: Sequence[tuple[bytes, bytes]],
    patience_seconds: float,
    place: Mapping[str, Any] | None,
) -> Result:
    name, warm = f"{entry.name}-{number}", int(WARM_RECORDS * entry.share)
    lane = await make_lane(broker, folder, name, len(requests), warm, place)
    environment = lane.environment(**dict(entry.changes))
    log = folder / f"{name}.log"
    counter: AbstractAsyncContextManager[EventCounter | SaidCounter] = (
        EventCounter(lane) if entry.has_events else nullcontext(SaidCounter())
    )
    async with start_line(lane, requests) as producer, counter as events:
        with Contender(entry.command, environment, log) as contender:
            await wait_until_joined(lane, contender, entry.hosts or 1)
            await events.wait_for(warm, contender)
            await asyncio.to_thread(wait_for_quiet, patience_seconds)
            watch, started = Watch(contender, broker), time.time()
            await producer.commit_transaction()
            await events.wait_for(warm + len(requests), contender)
            seconds = await events.last_event_seconds() - started
            result = watch.result(entry, number, len(requests), seconds)
            contender.stop()
    if place is not None:
        _check_shared(lane)
    else:
        _check_files(lane)
        _check_ledger(lane, entry)
    return result


def _check_shared(lane: Lane) -> None:
    with closing(open_to_read(lane.settings)) as store:
        found = sum(1 for each in store.files.paths_below("runs"))
        heads = store.logs.heads(store.logs.logs())
    if found != lane.warm + lane.records or not heads:
        raise BenchError(f"{lane.settings.prefix}: {found} files, {len(heads)} logs")


def _check_ledger(lane: Lane, entry: Entry) -> None:
    """See to it that what is compared is what it is called."""
    if (lane.settings.data_dir / LEDGER_FOLDER).exists() != entry.has_ledger:
        raise BenchError(f"{lane.settings.prefix}: expected a ledger: {entry.has_ledger}")


def _check_files(lane: Lane) -> None:
    runs = lane.settings.data_dir / "runs"
    files = sum(1 for path in runs.rglob("*.json"))
    if files != lane.warm + lane.records:
        raise BenchError(f"{lane.settings.prefix}: {files} files of {lane.records} records")
