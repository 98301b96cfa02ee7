"""The worker of today leaves what the worker of before left, byte for byte.

`frozen.json` is never made from the code under test, but printed for an older checkout by

    python -m tests.e2e.equivalence.outcomes --records N RMOS

Files and ledger are those of commit 8bd82dd; the other sections are of commit 8d73e2d, which knows
notes about awaited blobs, `gcode_known_by` and `missing_attachments`. Where a test fails, the same
command with both checkouts shows the lines that differ.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from pipeline.broker.local.broker import LocalBroker
from pipeline.settings import Settings
from tests.e2e.equivalence.outcomes import digests, outcomes
from tests.e2e.worker_processes import RMOS, WorkerPool, WorkerProcess

pytestmark = pytest.mark.e2e

FROZEN = json.loads(Path(__file__).with_name("frozen.json").read_text(encoding="utf-8"))


def start(
    workers: WorkerPool, words: Sequence[str], settings: Settings, environment: Mapping[str, str]
) -> WorkerProcess:
    return workers.fork([str(RMOS), *words], settings, **environment)


@pytest.mark.parametrize("count", [1000, pytest.param(20_000, marks=pytest.mark.slow)])
async def test_mixed_records_give_the_same_files_logs_rows_and_messages_as_ever(
    broker: LocalBroker, tmp_path: Path, count: int
) -> None:
    found = digests(await outcomes(broker, tmp_path, count, start))

    assert found["records"] == FROZEN[str(count)]["records"], "other records were sent"
    assert found == FROZEN[str(count)]
