"""Many writers, one run_id: one file, one `persisted`, and an index that agrees with the file.

Every writer has its own store object on the same root, and each round gives all of them the same
run_id at the same moment: some with the same request, some with another, some with another date.
"""

import multiprocessing
import threading
from collections import Counter
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, Protocol

import pytest

from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.runs.verdict import JudgedRun
from pipeline.storage.batch_plan import JudgedRecord
from pipeline.storage.run_store import RunStore
from pipeline.storage.store import open_store_to_write
from tests.builders import judged, run_request
from tests.storage.stores import files, make_store, rows, source

WRITERS = 8
ROUNDS = 1000
ROUNDS_OF_A_COMMIT = 20
"""All writers commit the same twenty new runs at the same moment: fifty times the same race."""

VARIANTS: list[dict[str, Any]] = [
    {},
    {},
    {"notes": "another request"},
    {"created_at_utc": "2025-12-19T00:00:00Z"},
]
"""Writer `n` asks for variant `n % 4`: of each four two are equal."""


class Gate(Protocol):
    """What lets all writers go at once."""

    def wait(self) -> int: ...


def verdicts_of(variant: int) -> list[JudgedRun]:
    return [judged(run_request(run_id=f"run_{n}", **VARIANTS[variant])) for n in range(ROUNDS)]


def write_all(root: Path, writer: int, verdicts: list[JudgedRun], gate: Gate) -> list[str]:
    """Race with the others through all rounds; return what became of each record."""
    told: list[str] = []
    store = RunStore(open_store_to_write(root))
    try:
        for start in range(0, ROUNDS, ROUNDS_OF_A_COMMIT):
            batch = [
                JudgedRecord.of(source(n, partition=writer), verdicts[n], b"", n)
                for n in range(start, start + ROUNDS_OF_A_COMMIT)
            ]
            gate.wait()
            told += [outcome.kind for outcome in store.commit(batch).outcomes]
    finally:
        store.close()
    return told


def race_of_threads(root: Path) -> list[list[str]]:
    verdicts = [verdicts_of(variant) for variant in range(len(VARIANTS))]
    gate = threading.Barrier(WRITERS, timeout=600)
    told: list[list[str]] = [[] for _ in range(WRITERS)]

    def work(writer: int) -> None:
        told[writer] = write_all(root, writer, verdicts[writer % len(VARIANTS)], gate)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return told


def work_of_a_process(
    root: Path, writer: int, gate: Barrier, answers: "multiprocessing.Queue[Any]"
) -> None:
    answers.put((writer, write_all(root, writer, verdicts_of(writer % len(VARIANTS)), gate)))


def race_of_processes(root: Path) -> list[list[str]]:
    spawning = multiprocessing.get_context("spawn")
    gate = spawning.Barrier(WRITERS, timeout=120)
    answers: multiprocessing.Queue[Any] = spawning.Queue()
    processes = [
        spawning.Process(target=work_of_a_process, args=(root, n, gate, answers))
        for n in range(WRITERS)
    ]
    for process in processes:
        process.start()
    told = dict(answers.get(timeout=180) for _ in processes)
    for process in processes:
        process.join()
        assert process.exitcode == 0
        process.close()
    answers.close()
    answers.join_thread()
    return [told[n] for n in range(WRITERS)]


@pytest.mark.slow
@pytest.mark.parametrize("race", [race_of_threads, race_of_processes])
def test_of_many_writers_of_one_run_exactly_one_persists_it(
    tmp_path: Path, race: Callable[[Path], list[list[str]]]
) -> None:
    root = tmp_path / "store"
    make_store(root)
    told = race(root)
    found = files(root)
    by_run = {row["run_id"]: row for row in rows(root)["runs"]}
    assert len(found) == len(by_run) == ROUNDS
    for n in range(ROUNDS):
        row = by_run[f"run_{n}"]
        assert sha256_of_bytes(found[row["artifact_path"]]) == row["artifact_sha256"]
        assert (row["source_topic"], row["source_offset"]) == ("rmos.runs.requests", n)
        outcomes = [told[writer][n] for writer in range(WRITERS)]
        winner = row["source_partition"]
        assert outcomes[winner] == "persisted"
        same = {w for w in range(WRITERS) if VARIANTS[w % 4] == VARIANTS[winner % 4]}
        expected = ["duplicate" if w in same else "conflict" for w in range(WRITERS)]
        expected[winner] = "persisted"
        assert outcomes == expected
    winners = Counter(row["source_partition"] for row in by_run.values())
    assert len(winners) > 1, "one writer always came first, so there was no race"
