"""Compare the index with the files that it is derived from."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipeline.storage.artifact_files import StrangeFile, find_artifacts
from pipeline.storage.run_store import RunStore


@dataclass(frozen=True, slots=True)
class IndexDifference:
    """One path where index and files do not tell the same."""

    path: str
    expected: str
    found: str


def check_index(
    store: RunStore, progress: Callable[[int], None] = lambda count: None
) -> Iterator[IndexDifference]:
    """Compare every row with its file and every file with its row, by hash.

    Raises:
        StoreError: The disk or the index failed.
    """
    rows = {run.artifact_path: run.artifact_sha256 for run in store.index.all_runs()}
    for count, found in enumerate(find_artifacts(store.root), start=1):
        progress(count)
        if isinstance(found, StrangeFile):
            if found.path in rows:
                expected = rows.pop(found.path)
                yield IndexDifference(found.path, f"SHA-256 {expected}", found.reason)
            else:
                yield IndexDifference(found.path, "nothing", found.reason)
            continue
        expected = rows.pop(found.run.artifact_path, "")
        if expected != found.run.artifact_sha256:
            yield IndexDifference(
                found.run.artifact_path,
                f"SHA-256 {expected}" if expected else "no file: the index has no such run",
                f"SHA-256 {found.run.artifact_sha256}",
            )
    for path, expected in sorted(rows.items()):
        yield IndexDifference(path, f"SHA-256 {expected}", "no file")
