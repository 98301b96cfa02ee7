"""All that workers leave of the mixed records, as lines: files, rows, events and dead letters.

    python -m tests.e2e.equivalence.outcomes [--records N] RMOS [RMOS ...]

Each RMOS is the `rmos` of a checkout, with its own environment: it persists the records and links
their advisories, on a broker and in a store of its own, whose identity and key are always the
same. Prints the digest of each section as JSON. Of two or more commands it prints the first lines
in which the others differ from the first, and exits with 1 where there are any.
"""

import argparse
import asyncio
import hashlib
import json
import signal
import sqlite3
import stat
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from pipeline.broker.admin.groups import committed_offsets
from pipeline.broker.admin.topics import partition_offsets
from pipeline.broker.local.broker import LocalBroker
from pipeline.core.store.identity import STORE_FILE
from pipeline.settings import Settings, read_settings
from pipeline.storage.index.run_index import INDEX_FILE
from tests.e2e.equivalence.mixed_records import mixed_advisories, mixed_records
from tests.e2e.kafka_reading import (
    Sending,
    header_dict,
    produce,
    read_topic,
    topics_of,
    wait_until,
)
from tests.e2e.prepared_store import prepare_store
from tests.e2e.worker_processes import WorkerPool, WorkerProcess, worker_pool
from tests.ledger.tlog.signers import signer

PREFIX = "mixed"
STORE_ID = "0" * 32
NEVER_SECONDS = "1e9"
"""The records are of long ago, and an advisory waits for its run from their time on."""

PATIENCE_SECONDS = 600.0
DIFFERENCES_SHOWN = 10

Sections = Mapping[str, list[str]]
"""Lines of each section, sorted or in the order of their offsets."""

Start = Callable[[WorkerPool, Sequence[str], Settings, Mapping[str, str]], WorkerProcess]
"""Starts `rmos` with these words and with settings of its own."""

_ROWS = {
    "runs": "run_id",
    "attachments": "run_id, position",
    "withheld_blobs": "sha256, run_id",
    "advisories": "run_id, advisory_id",
    "positions": "epoch, topic, partition",
}
"""Tables of the index whose rows are a function of the records, and their order. The others hold
the topic's id, or what the moment decides."""


async def outcomes(broker: LocalBroker, folder: Path, count: int, start: Start) -> Sections:
    """Publish the records, let workers take them, and return what is there afterwards."""
    settings = read_settings(
        prefix=PREFIX, bootstrap_servers=broker.bootstrap_servers, data_dir=folder / "store"
    )
    topics = settings.topics
    # The times of the records are those of their producer, so that the leaves are always the same.
    times = {"message.timestamp.type": "CreateTime"}
    async with topics_of(settings, of_requests=times):
        key_file = key_file_in(folder)
        prepare_store(
            settings.model_copy(update={"ledger_key_file": key_file}),
            broker.cluster_id,
            store_id=STORE_ID,
        )
        requests, advisories = list(mixed_records(count)), list(mixed_advisories(count))
        await produce(settings, requests, compression="lz4")
        await produce(settings, advisories, topic=topics.advisory_requests, compression="lz4")
        environment = {
            "RMOS_LEDGER_KEY_FILE": str(key_file),
            "RMOS_ADVISORY_WAIT_SECONDS": NEVER_SECONDS,
        }
        with worker_pool(folder) as workers:
            # An older checkout has topics that this one has not.
            await start(workers, ("topics", "apply"), settings, {}).ended()
            # In turns: whether an advisory finds its run must not depend on the moment.
            for kind, topic, group in (
                ("persist", topics.run_requests, topics.persist_group),
                ("advise", topics.advisory_requests, topics.advise_group),
            ):
                worker = start(workers, ("worker", kind), settings, environment)
                await until_consumed(settings, topic, group, worker)
                status = await worker.stop(signal.SIGTERM)
                assert status == 0, worker.text
        return {
            "records": [_of_sending(each) for each in (*requests, *advisories)],
            **_tree(settings.data_dir),
            "index": list(_rows(settings.data_dir / INDEX_FILE)),
            "messages": sorted([line async for line in _messages(settings)]),
        }


def digests(sections: Sections) -> dict[str, str]:
    """Return one SHA-256 for each section."""
    return {
        name: hashlib.sha256("\n".join(lines).encode()).hexdigest()
        for name, lines in sections.items()
    }


def differences(before: Sections, after: Sections) -> Iterator[str]:
    """Yield every line that only one of two checkouts has, `-` that of the first."""
    for name, lines in before.items():
        old, new = set(lines), set(after[name])
        yield from (f"{name} - {line}" for line in lines if line not in new)
        yield from (f"{name} + {line}" for line in after[name] if line not in old)


def key_file_in(folder: Path) -> Path:
    """Make a key that is always the same; return its file."""
    key_file = folder / "ledger.pem"
    private = signer().private_key
    key_file.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    key_file.chmod(0o400)
    return key_file


async def until_consumed(
    settings: Settings, topic: str, group: str, *workers: WorkerProcess
) -> None:
    """Wait until a group has consumed a topic, while each of its workers runs."""
    ends = {place: each.end for place, each in (await partition_offsets(settings, [topic])).items()}

    async def is_consumed() -> bool:
        for worker in workers:
            worker.check()
        committed = await committed_offsets(settings, group, [topic])
        return all(committed.get(place, 0) >= end for place, end in ends.items())

    await wait_until(is_consumed, f"{group} has consumed its topic", seconds=PATIENCE_SECONDS)


def _of_sending(each: Sending) -> str:
    return _line(each.partition, each.timestamp_ms, each.key, each.value, *each.headers)


def _tree(root: Path) -> dict[str, list[str]]:
    """Return path, mode and hash of every file but the index: of logs, of notes, and the others."""
    found: dict[str, list[str]] = {"files": [], "ledger": [], "awaited": []}
    for path in sorted(root.rglob("*")):
        name, mode = path.relative_to(root).as_posix(), stat.filemode(path.lstat().st_mode)
        area = name.partition("/")[0]
        if area.startswith("index"):
            continue
        # The identity names the cluster.
        is_empty = path.is_dir() or name == STORE_FILE
        content = b"" if is_empty else path.read_bytes()
        found[area if area in found else "files"].append(
            f"{name} {mode} {hashlib.sha256(content).hexdigest()}"
        )
    return found


def _rows(index: Path) -> Iterator[str]:
    with closing(sqlite3.connect(f"file:{index}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        for table, order in _ROWS.items():
            for row in connection.execute(f"SELECT * FROM {table} ORDER BY {order}"):
                yield f"{table} {json.dumps(dict(row), sort_keys=True)}"


async def _messages(settings: Settings) -> AsyncIterator[str]:
    """Yield events and dead letters, those about one partition of requests in their order.

    A partition of dead letters takes those of several, whose order the moment decides.
    """
    topics = settings.topics
    for topic in (
        *(topics.run_events, topics.run_dead_letters),
        *(topics.advisory_events, topics.advisory_dead_letters),
    ):
        numbers: Counter[tuple[int, bytes | None]] = Counter()
        for each in await read_topic(settings, topic):
            place = each.partition, header_dict(each).get("rmos-source-partition")
            numbers[place] += 1
            yield f"{topic} {place} {numbers[place]} " + _line(each.key, each.value, *each.headers)


def _line(*parts: object) -> str:
    """Return parts of a record as one line; what is long as its hash."""
    return " ".join(_shown(part) for part in parts)


def _shown(part: object) -> str:
    text = repr(part)
    return text if len(text) <= 2000 else f"sha256 {hashlib.sha256(text.encode()).hexdigest()}"


def _of_command(rmos: str) -> Start:
    def start(
        workers: WorkerPool,
        words: Sequence[str],
        settings: Settings,
        environment: Mapping[str, str],
    ) -> WorkerProcess:
        # Its own checkout must not be hidden by this one.
        return workers.run([rmos, *words], settings, **environment, PYTHONPATH="")

    return start


def _measured(rmos: str, count: int) -> Sections:
    with tempfile.TemporaryDirectory(prefix="rmos-equivalence-") as name:
        folder = Path(name)
        with LocalBroker(folder / "kafka", port=0) as broker:
            return asyncio.run(outcomes(broker, folder, count, _of_command(rmos)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("rmos", nargs="+", help="command of a checkout, as PATH/.venv/bin/rmos")
    options = parser.parse_args()
    found = [_measured(rmos, options.records) for rmos in options.rmos]
    for rmos, sections in zip(options.rmos, found, strict=True):
        print(json.dumps({"rmos": rmos, "records": options.records, **digests(sections)}))
    differing = [list(differences(found[0], other)) for other in found[1:]]
    for rmos, lines in zip(options.rmos[1:], differing, strict=True):
        print(f"{rmos}: {len(lines):,} lines differ", *lines[:DIFFERENCES_SHOWN], sep="\n")
    sys.exit(any(differing))


if __name__ == "__main__":
    main()
