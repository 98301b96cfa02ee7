"""The disk ceiling: the same artifacts by the same group commit, and nothing else.

`python -m tests.bench.disk_ceiling FOLDER RECORDS`: says `ready`, begins with the first line of
standard input, and ends with one line of JSON.
"""

import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.core.runs.verdict import JudgedRun, judge_run_record
from pipeline.core.store.files import NewFile
from pipeline.disk.durable_files import ROUND_FILES, DurableFiles
from tests.bench.requests import DISTINCT, encoded_requests

THREADS = 2
"""While one waits for a flush, the other writes."""


def main() -> None:
    folder, records = Path(sys.argv[1]), int(sys.argv[2])
    folder.mkdir(parents=True)
    files = _artifacts(records)
    print("ready", flush=True)
    sys.stdin.readline()
    started = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as threads:
        for each in [threads.submit(_write, folder, files[n::THREADS]) for n in range(THREADS)]:
            each.result()
    print(json.dumps({"seconds": time.perf_counter() - started}), flush=True)
    sys.stdin.readline()


def _artifacts(records: int) -> list[NewFile]:
    contents = []
    for key, value in encoded_requests(min(records, DISTINCT)):
        verdict = judge_run_record(key, value)
        assert isinstance(verdict, JudgedRun), verdict
        contents.append((verdict.path, verdict.built.content))
    return [_renamed(*contents[number % DISTINCT], number) for number in range(records)]


def _renamed(path: str, content: bytes, number: int) -> NewFile:
    return NewFile(path.replace(".json", f"-{number}.json"), content)


def _write(folder: Path, files: Sequence[NewFile]) -> None:
    writer = DurableFiles(folder)
    for start in range(0, len(files), ROUND_FILES):
        writer.create(files[start : start + ROUND_FILES])


if __name__ == "__main__":
    main()
