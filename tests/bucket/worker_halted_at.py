"""Workers of a shared store, each halted at one step of its batch, as if it owned all partitions.

Run as a program: `worker_halted_at.py LOCKS`, with the settings of a store. For each step in turn a
process of its own prints its id and takes the next five records of each partition. At the step
SIGSTOP halts it. Let go, it begins its batch again as a worker does after a fault of the network,
and prints what became of it, as JSON: the outcomes, and how often which fault was met.
"""

import json
import os
import signal
import sys
from collections import Counter
from contextlib import closing
from functools import cache

import pytest

from pipeline.bucket.files import BucketFiles
from pipeline.bucket.log_store import BucketLogsToWrite
from pipeline.errors import IntegrityError, StoreError
from pipeline.ledger.writer import Ledger
from pipeline.postgres.database import PostgresDatabase, PostgresTransaction
from pipeline.settings import read_settings
from pipeline.storage.batch_plan import JudgedRecord
from pipeline.storage.index.queries import IndexTransaction
from pipeline.storage.run_store import RunStore
from pipeline.storage.store import open_to_write
from tests.e2e.worker_stopped_at import AFTER, BEFORE, Step, stop_at
from tests.postgres.test_shared_store import LIMIT, PARTITIONS, leave_out_locks, mixed

STEPS: dict[str, Step] = {
    "1. locked": (PostgresDatabase, "_begin", 1, AFTER),
    "2. rows inserted": (RunStore, "_claim", 1, AFTER),
    "3. leaves appended": (Ledger, "_append", 1, AFTER),
    "4. some files created": (BucketFiles, "_create", 1, AFTER),
    "4. files created": (BucketFiles, "link", 1, AFTER),
    "5. checkpoints signed": (BucketLogsToWrite, "swap", 1, BEFORE),
    "5. some swapped": (BucketLogsToWrite, "_swap", 1, AFTER),
    "5. swapped": (BucketLogsToWrite, "swap", 1, AFTER),
    "6. positions noted": (IndexTransaction, "advance", 1, AFTER),
    "7. to be committed": (PostgresTransaction, "commit", 1, BEFORE),
    "7. committed": (PostgresTransaction, "commit", 1, AFTER),
}
"""By the numbers of `pipeline/storage/batch_store.py`."""

BATCH = 5


@cache
def records_of(partition: int) -> list[JudgedRecord]:
    return mixed(partition, 120)


def batch(start: int, end: int) -> list[JudgedRecord]:
    """Return the records of all partitions between two offsets."""
    return [each for p in range(PARTITIONS) for each in records_of(p)[start:end]]


def work(step: str, records: list[JudgedRecord]) -> None:
    failed: Counter[str] = Counter()
    store, ledger = open_to_write(read_settings())
    with closing(RunStore(store, ledger=ledger)) as batches:
        stop_at(STEPS[step], signal.SIGSTOP)
        while True:
            try:
                outcomes = batches.commit(records, LIMIT).outcomes
                break
            except IntegrityError:
                raise
            except StoreError as error:
                failed.update(names_of(error))
    said = {"outcomes": list(map(repr, outcomes)), "failed": failed}
    print(json.dumps(said), flush=True)


def names_of(error: BaseException | None) -> set[str]:
    """Return the faults of a store that an error is, and that led to it."""
    if error is None:
        return set()
    own = {type(error).__name__} if isinstance(error, StoreError) else set()
    return own | names_of(error.__context__)


def main() -> None:
    if sys.argv[1] == "without":
        leave_out_locks(pytest.MonkeyPatch())
    batch(0, 0)
    for number, step in enumerate(STEPS):
        child = os.fork()
        if child == 0:
            try:
                print(os.getpid(), flush=True)
                work(step, batch(number * BATCH, (number + 1) * BATCH))
            finally:
                os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
