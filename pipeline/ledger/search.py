"""Finds the leaf that made a run or an advisory: where the index says, else by reading the logs."""

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.core.advisories.outcome import StoredAdvisory
from pipeline.core.record import RecordSource
from pipeline.core.runs.outcome import StoredRun
from pipeline.errors import IntegrityError
from pipeline.ledger.folder import ledger_faults
from pipeline.ledger.leaf import LedgerLeaf, parse_leaf
from pipeline.ledger.log_id import LogId
from pipeline.ledger.reader import LogReader, StoreLogs


@dataclass(frozen=True, slots=True)
class FoundLeaf:
    """A leaf and its place.

    Attributes:
        reader: Its log, at the checkpoint that covers it.
        index: From the log's start.
    """

    reader: LogReader
    index: int
    leaf: LedgerLeaf


def find_run_leaf(logs: StoreLogs, run: StoredRun) -> FoundLeaf:
    """Return the leaf that made a run, which names the file that the index names.

    Raises:
        IntegrityError: There is none, or it names another file or other bytes.
    """
    found = _find(logs, run.source, "run", run.run_id, None)
    if found is None:
        raise IntegrityError(f"The run {run.run_id} has no leaf in the ledger: nothing proves it.")
    if (found.leaf.path, found.leaf.sha256) != (run.artifact_path, run.artifact_sha256):
        raise IntegrityError(
            f"Expected {found.leaf.path} with SHA-256 {found.leaf.sha256}, as the leaf of "
            f"{run.run_id} says, found {run.artifact_path} with {run.artifact_sha256}."
        )
    return found


def find_advisory_leaf(logs: StoreLogs, advisory: StoredAdvisory) -> FoundLeaf:
    """Return the leaf that made an advisory, which names the link that the index names.

    Raises:
        IntegrityError: There is none, or it names other bytes.
    """
    found = _find(logs, advisory.source, "advisory", advisory.run_id, advisory.advisory_id)
    if found is None:
        raise IntegrityError(
            f"The link {advisory.link_path} has no leaf in the ledger: nothing proves it."
        )
    if found.leaf.link_sha256 != advisory.link_sha256:
        raise IntegrityError(
            f"Expected {advisory.link_path} with SHA-256 {found.leaf.link_sha256}, as its leaf "
            f"says, found {advisory.link_sha256}."
        )
    return found


def has_run_leaf(logs: StoreLogs, run_id: str) -> bool:
    """Return whether a run that the index does not know has a leaf. Reads all logs.

    Raises:
        IntegrityError: A log is not what was written.
    """
    return _find(logs, None, "run", run_id, None) is not None


def _find(
    logs: StoreLogs, source: RecordSource | None, kind: str, run_id: str, advisory_id: str | None
) -> FoundLeaf | None:
    wanted = (kind, run_id, advisory_id)
    for found in _at_source(logs, source):
        if _names(found.leaf) == wanted:
            return found
    # A row without a source, or one that a rebuild gave to a later record.
    needle = f'"run_id":"{run_id}"'.encode()
    for reader in logs.open_all():
        for index, entry in enumerate(reader.entries()):
            if needle in entry:
                with ledger_faults(reader.log):
                    leaf = parse_leaf(entry)
                if _names(leaf) == wanted:
                    return FoundLeaf(reader, index, leaf)
    return None


def _at_source(logs: StoreLogs, source: RecordSource | None) -> Iterator[FoundLeaf]:
    if source is None:
        return
    log = LogId(source.epoch, source.id.topic, source.id.partition)
    if log not in logs.ids():
        return
    reader = logs.open(log)
    index = reader.index_of(source.id.offset)
    if index is not None:
        yield FoundLeaf(reader, index, reader.leaf(index))


def _names(leaf: LedgerLeaf) -> tuple[str, str | None, str | None]:
    return leaf.kind, leaf.run_id, leaf.advisory_id
