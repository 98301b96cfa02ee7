"""Compare the index with the files that it is derived from."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain

from pipeline.core.layout import BlobArea, BlobPath, parse_path
from pipeline.core.progress import Progress, no_progress
from pipeline.core.store.contents import StoreContents
from pipeline.core.store.files import NotAFileError, ReadableFiles
from pipeline.storage.archives import Archives, is_gone
from pipeline.storage.artifacts import FoundArtifact, UnexpectedFile, find_run_files
from pipeline.storage.attachments import OpenBlob
from pipeline.storage.batch_plan import StoredRow, path_of_row, sha256_of_row
from pipeline.storage.index.run_index import RunIndex


@dataclass(frozen=True, slots=True)
class IndexDifference:
    """One path where index and files differ."""

    path: str
    expected: str
    found: str


def check_index(
    store: StoreContents, index: RunIndex, progress: Progress = no_progress
) -> Iterator[IndexDifference]:
    """Compare every row with its file, every file with its row, and every blob with its name.

    A row is compared as a whole, but for the record that made it, which the file does not
    name; the row must name one. Whether a blob that a run names is there at all is no
    question of the index.
    """
    rows, unexplained = _expected(index)
    for count, found in enumerate(find_run_files(store.files), start=1):
        progress("files", count, None)
        if isinstance(found, UnexpectedFile):
            expected = rows.pop(found.path, None)
            wanted = "nothing" if expected is None else f"SHA-256 {expected}"
            yield IndexDifference(found.path, wanted, found.reason)
            continue
        row, what = (found.run, "run") if isinstance(found, FoundArtifact) else (found, "advisory")
        path, sha256 = path_of_row(row), sha256_of_row(row)
        assert path is not None, "a link that was found has a path"
        expected = rows.pop(path, None)
        if expected != sha256:
            wanted = f"no file: the index has no such {what}"
            yield IndexDifference(
                path, wanted if expected is None else f"SHA-256 {expected}", f"SHA-256 {sha256}"
            )
        elif path in unexplained:
            yield IndexDifference(path, f"a leaf or a record that explains this {what}", "neither")
        elif isinstance(found, FoundArtifact):
            yield from _row_difference(index, found)
    for path in archived_paths(store, index):
        rows.pop(path, None)
    for path, expected in sorted(rows.items()):
        yield IndexDifference(path, f"SHA-256 {expected}", "no file")
    yield from _changed_blobs(store.files)


def archived_paths(store: StoreContents, index: RunIndex) -> Iterator[str]:
    """Yield the path of each artifact and link that a row names and that is archived."""
    archives = Archives(store)
    if not archives.dates():
        return
    runs = {run.run_id: run for run in index.all_runs()}
    for row in chain[StoredRow](runs.values(), index.all_advisories()):
        path = path_of_row(row)
        if path is not None and archives.has_row(row, runs) and is_gone(store.files, path):
            yield path


def _row_difference(index: RunIndex, found: FoundArtifact) -> Iterator[IndexDifference]:
    columns = index.differing_columns(found.indexed)
    if columns:
        yield IndexDifference(
            found.run.artifact_path,
            "the row that this artifact makes",
            f"a row with another {', '.join(columns)}",
        )


def _changed_blobs(files: ReadableFiles) -> Iterator[IndexDifference]:
    with files.faults():
        for area in BlobArea:
            paths = files.paths_below(area.value)
            yield from filter(None, files.at_once(partial(_blob_difference, files), paths))


def _blob_difference(files: ReadableFiles, path: str) -> IndexDifference | None:
    blob = parse_path(path)
    if not isinstance(blob, BlobPath):
        return IndexDifference(path, "nothing", "a file that no blob is named like")
    expected = f"SHA-256 {blob.sha256}"
    try:
        file = files.open(path)
    except NotAFileError as error:
        return IndexDifference(path, expected, str(error))
    with closing(OpenBlob(file, blob.sha256)) as opened:
        check = opened.check()
    if check.rule is None:
        return IndexDifference(path, expected, f"SHA-256 {check.actual_sha256}")
    return None


def _expected(index: RunIndex) -> tuple[dict[str, str], set[str]]:
    """Return the hash that the index expects under each path, and the paths without a record.

    A claim that waits has no file yet.
    """
    rows, unexplained = {}, set()
    every: Iterator[StoredRow] = chain(index.all_runs(), index.all_advisories())
    for row in every:
        path = path_of_row(row)
        if path is not None:
            rows[path] = sha256_of_row(row)
            if row.source is None:
                unexplained.add(path)
    return rows, unexplained
