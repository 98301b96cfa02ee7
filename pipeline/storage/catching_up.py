"""The index follows the ledger: rows that it has lost are made again from leaves and files.

A database that fails over without its last rows, or comes from a backup, stands behind the logs of
the store. Its batches would take runs that are known for new ones, and write leaves that contradict
those that are there. So before a batch goes on with a partition, what lies between the position of
the index and the batch is read from the log, and its files.
"""

from collections.abc import Iterable

import structlog

from pipeline.core.advisories.outcome import StoredAdvisory, advisory_of_link
from pipeline.core.json.strict import parse_object
from pipeline.core.layout import ArtifactPath, LinkPath, parse_path
from pipeline.core.record import RecordId, RecordSource
from pipeline.core.runs.outcome import StoredRun, run_of_document
from pipeline.core.store.contents import StoreContents
from pipeline.errors import IntegrityError, StoreNotReadyError
from pipeline.ledger.leaf import LedgerLeaf
from pipeline.ledger.log_id import LogId
from pipeline.ledger.reader import LogReader
from pipeline.storage.artifacts import read_recorded, withheld_payloads
from pipeline.storage.index import queries
from pipeline.storage.index.queries import IndexTransaction
from pipeline.storage.index.tables import IndexedRun, indexed_run

_log = structlog.get_logger(__name__)

_LEAVES = 500
"""As many are read at a time; each has one file at most."""


def catch_up(
    store: StoreContents,
    log: LogId,
    reader: LogReader,
    transaction: IndexTransaction,
    *,
    position: int,
    before: int,
) -> None:
    """Add the rows of what the leaves of a log name and the index does not have.

    Args:
        store: The store.
        log: Of the partition that a batch goes on with.
        reader: Of the log.
        transaction: Gets the rows.
        position: The next offset by the index.
        before: The first offset of the batch.

    Raises:
        IntegrityError: A file is not what its leaf says.
        ArchivedError: A file is archived.
        StoreNotReadyError: Only a record of the topic has what is missing.
    """
    start, end = reader.first_from(position), reader.first_from(before)
    if start == end:
        return
    _log.warning("index behind the ledger", log=log.path, position=position, leaves=end - start)
    for at in range(start, end, _LEAVES):
        leaves = list(reader.leaves(at, min(at + _LEAVES, end)))
        transaction.add_runs(_missing_runs(store, log, leaves, transaction))
        # Their runs are there by now, if they came before this log's last leaves.
        transaction.add_advisories(_missing_advisories(store, log, leaves, transaction))


def _missing_runs(
    store: StoreContents, log: LogId, leaves: Iterable[LedgerLeaf], transaction: IndexTransaction
) -> list[IndexedRun]:
    wanted = {leaf.run_id: leaf for leaf in leaves if leaf.kind == "run" and leaf.run_id}
    known = queries.known_runs(transaction.connection, list(wanted))
    return [
        _row_of_run(store, leaf, _source(log, leaf))
        for run_id, leaf in wanted.items()
        if run_id not in known
    ]


def _row_of_run(store: StoreContents, leaf: LedgerLeaf, source: RecordSource) -> IndexedRun:
    assert leaf.path is not None, "the leaf of a run names its file"
    assert leaf.sha256 is not None
    assert leaf.size_bytes is not None
    content = read_recorded(
        store, leaf.path, leaf.sha256, sources=(source,), limit_bytes=leaf.size_bytes
    )
    document, _ = parse_object(content)
    run = run_of_document(document, leaf.sha256, leaf.path, leaf.size_bytes, source)
    return indexed_run(document, run, withheld_payloads(store.files, document))


def _missing_advisories(
    store: StoreContents, log: LogId, leaves: Iterable[LedgerLeaf], transaction: IndexTransaction
) -> list[StoredAdvisory]:
    wanted = {
        (leaf.run_id, leaf.advisory_id): leaf
        for leaf in leaves
        if leaf.kind == "advisory" and leaf.run_id and leaf.advisory_id
    }
    connection = transaction.connection
    known = queries.known_advisories(connection, list(wanted))
    missing = [leaf for key, leaf in wanted.items() if key not in known]
    runs = queries.known_runs(connection, list({leaf.run_id or "" for leaf in missing}))
    return [
        _row_of_advisory(store, leaf, runs.get(leaf.run_id or ""), _source(log, leaf))
        for leaf in missing
    ]


def _row_of_advisory(
    store: StoreContents, leaf: LedgerLeaf, run: StoredRun | None, source: RecordSource
) -> StoredAdvisory:
    assert leaf.run_id is not None, "the leaf of an advisory names both, and its link"
    assert leaf.advisory_id is not None
    assert leaf.link_sha256 is not None
    place = None if run is None else parse_path(run.artifact_path)
    if run is None or not isinstance(place, ArtifactPath):
        raise _needs_its_record(store, source)
    path = str(LinkPath(place.date, leaf.run_id, leaf.advisory_id))
    try:
        content = read_recorded(store, path, leaf.link_sha256, sources=(run.source, source))
    except IntegrityError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise _needs_its_record(store, source) from error
        raise
    return advisory_of_link(parse_object(content)[0], leaf.link_sha256, path, source)


def _needs_its_record(store: StoreContents, source: RecordSource) -> StoreNotReadyError:
    return StoreNotReadyError(
        f"The index of the store {store.name} lacks the advisory of {source.id}, whose link is not "
        "made yet, so only its record has it: run rmos index rebuild."
    )


def _source(log: LogId, leaf: LedgerLeaf) -> RecordSource:
    return RecordSource(log.epoch, RecordId(log.topic, log.partition, leaf.offset))
