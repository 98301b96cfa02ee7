"""Compare the index with the files that it is derived from."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipeline.storage.artifact_files import (
    FoundArtifact,
    FoundLink,
    StrangeFile,
    find_run_files,
)
from pipeline.storage.index import RunIndex
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
    rows = _sha256_by_path(store.index)
    for count, found in enumerate(find_run_files(store.root), start=1):
        progress(count)
        if isinstance(found, StrangeFile):
            expected = rows.pop(found.path, None)
            wanted = "nothing" if expected is None else f"SHA-256 {expected}"
            yield IndexDifference(found.path, wanted, found.reason)
            continue
        path, sha256, what = _told_by(found)
        expected = rows.pop(path, None)
        if expected != sha256:
            wanted = f"no file: the index has no such {what}"
            yield IndexDifference(
                path, wanted if expected is None else f"SHA-256 {expected}", f"SHA-256 {sha256}"
            )
    for path, expected in sorted(rows.items()):
        yield IndexDifference(path, f"SHA-256 {expected}", "no file")


def _sha256_by_path(index: RunIndex) -> dict[str, str]:
    """Return what the index expects under each path; a claim that waits has no file yet."""
    rows = {run.artifact_path: run.artifact_sha256 for run in index.all_runs()}
    for advisory in index.all_advisories():
        if advisory.link_path is not None:
            rows[advisory.link_path] = advisory.link_sha256
    return rows


def _told_by(found: FoundArtifact | FoundLink) -> tuple[str, str, str]:
    if isinstance(found, FoundArtifact):
        return found.run.artifact_path, found.run.artifact_sha256, "run"
    advisory = found.advisory
    assert advisory.link_path is not None, "a link that was found has a path"
    return advisory.link_path, advisory.link_sha256, "advisory"
