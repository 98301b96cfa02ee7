"""The index follows the ledger: rows that it has lost are made again from leaves and files.

A database that fails over without its last rows, or comes from a backup, stands behind the logs of
the store. Its batches would take runs that are known for new ones, and write leaves that contradict
those that are there. So before a batch goes on with a partition, what lies between the position of
the index and the batch is read from the log, and its files.

A run may come again by another partition, and an advisory is about a run of another topic. So the
first batch of a connection to such a database brings back the rows of all logs, runs first. It
leaves the positions to the batches of those logs.
"""

from collections.abc import Iterable, Iterator, Mapping

import structlog

from pipeline.core.advisories.outcome import StoredAdvisory, advisory_of_link
from pipeline.core.json.strict import parse_object
from pipeline.core.layout import ArtifactPath, LinkPath, parse_path
from pipeline.core.record import Partition, RecordId, RecordSource
from pipeline.core.runs.artifact import index_fields_of
from pipeline.core.runs.outcome import StoredRun, run_of_fields
from pipeline.core.store.contents import StoreContents
from pipeline.errors import IntegrityError, StoreNotReadyError
from pipeline.ledger.leaf import LedgerLeaf
from pipeline.ledger.log_id import LogId
from pipeline.ledger.reader import LogReader
from pipeline.ledger.stored_log import find_logs
from pipeline.ledger.writer import Ledger
from pipeline.storage.artifacts import read_recorded, withheld_payloads
from pipeline.storage.index import queries
from pipeline.storage.index.queries import IndexTransaction
from pipeline.storage.index.tables import IndexedRun, indexed_run

_log = structlog.get_logger(__name__)

_LEAVES = 500
"""As many are read at a time; each has one file at most."""


def follow(
    store: StoreContents,
    ledger: Ledger,
    transaction: IndexTransaction,
    *,
    positions: Mapping[Partition, int],
    firsts: Mapping[Partition, int],
) -> dict[Partition, int]:
    """Add the rows of what leaves name and the index does not have.

    Args:
        store: The store.
        ledger: Its logs.
        transaction: Gets the rows.
        positions: The next offset of each partition of the epoch by the index.
        firsts: The first offset of the batch in each of its partitions.

    Returns:
        How far the index follows now, of those partitions that it was behind in.

    Raises:
        IntegrityError: A log or a file is not what was written.
        ArchivedError: A file is archived.
        StoreNotReadyError: Only a record of the topic has what is missing.
    """
    if transaction.may_lack_rows:
        _bring_back(store, ledger, transaction, positions)
        transaction.note_whole()
    reached: dict[Partition, int] = {}
    behind = {
        LogId(store.identity.epoch, *place): (positions.get(place, 0), first)
        for place, first in firsts.items()
        if positions.get(place, 0) < first
    }
    for log, (reader, following) in ledger.opened(behind).items() if behind else ():
        position, first = behind[log]
        # Not so at a gap in the offsets, such as each mark of a transaction.
        if position < following:
            _catch_up(store, log, reader, transaction, position=position, before=first)
            reached[log.topic, log.partition] = min(first, following)
    return reached


def _bring_back(
    store: StoreContents,
    ledger: Ledger,
    transaction: IndexTransaction,
    positions: Mapping[Partition, int],
) -> None:
    """Add the missing rows of every log.

    A batch of another process may have written leaves and not committed yet: its rows are waited
    for. What only a record has is left to the batch of its partition.
    """
    logs = sorted(log for log in find_logs(store.logs) if log.epoch == store.identity.epoch)
    behind: list[tuple[LogId, LogReader, int]] = []
    for log, (reader, following) in ledger.opened(logs).items():
        position = positions.get((log.topic, log.partition), 0)
        if position < following:
            _log.warning("index behind the ledger", log=log.path, position=position)
            behind.append((log, reader, reader.first_from(position)))
    for log, reader, start in behind:
        for leaves in _chunks(reader, start, reader.size):
            transaction.add_runs(_missing_runs(store, log, leaves, transaction))
    for log, reader, start in behind:
        for leaves in _chunks(reader, start, reader.size):
            rows = _missing_advisories(store, log, leaves, transaction)
            transaction.add_advisories(filter(None, rows.values()))


def _catch_up(
    store: StoreContents,
    log: LogId,
    reader: LogReader,
    transaction: IndexTransaction,
    *,
    position: int,
    before: int,
) -> None:
    """Add the missing rows of one log, between two offsets.

    Raises:
        StoreNotReadyError: Only a record of the topic has what is missing.
    """
    start, end = reader.first_from(position), reader.first_from(before)
    if start == end:
        return
    _log.warning("index behind the ledger", log=log.path, position=position, leaves=end - start)
    for leaves in _chunks(reader, start, end):
        transaction.add_runs(_missing_runs(store, log, leaves, transaction))
        rows = _missing_advisories(store, log, leaves, transaction)
        for source, row in rows.items():
            if row is None:
                raise _needs_its_record(store, source)
        transaction.add_advisories(filter(None, rows.values()))


def _chunks(reader: LogReader, start: int, end: int) -> Iterator[list[LedgerLeaf]]:
    for at in range(start, end, _LEAVES):
        yield list(reader.leaves(at, min(at + _LEAVES, end)))


def _missing_runs(
    store: StoreContents, log: LogId, leaves: Iterable[LedgerLeaf], transaction: IndexTransaction
) -> list[IndexedRun]:
    wanted = {leaf.run_id: leaf for leaf in leaves if leaf.kind == "run" and leaf.run_id}
    known = queries.known_runs(transaction.connection, list(wanted))
    missing = (leaf for run_id, leaf in wanted.items() if run_id not in known)
    return list(store.files.at_once(lambda leaf: _row_of_run(store, log, leaf), missing))


def _row_of_run(store: StoreContents, log: LogId, leaf: LedgerLeaf) -> IndexedRun:
    assert leaf.path is not None, "the leaf of a run names its file"
    assert leaf.sha256 is not None
    assert leaf.size_bytes is not None
    source = _source(log, leaf)
    content = read_recorded(
        store, leaf.path, leaf.sha256, sources=(source,), limit_bytes=leaf.size_bytes
    )
    document, _ = parse_object(content)
    fields = index_fields_of(document)
    run = run_of_fields(fields, leaf.sha256, leaf.path, leaf.size_bytes, source)
    return indexed_run(fields, run, withheld_payloads(store.files, document))


def _missing_advisories(
    store: StoreContents, log: LogId, leaves: Iterable[LedgerLeaf], transaction: IndexTransaction
) -> dict[RecordSource, StoredAdvisory | None]:
    """Return the missing rows by their records; None where only its record has what is missing."""
    wanted = {
        (leaf.run_id, leaf.advisory_id): leaf
        for leaf in leaves
        if leaf.kind == "advisory" and leaf.run_id and leaf.advisory_id
    }
    connection = transaction.connection
    known = queries.known_advisories(connection, list(wanted))
    missing = [leaf for key, leaf in wanted.items() if key not in known]
    runs = queries.known_runs(connection, list({leaf.run_id or "" for leaf in missing}))

    def row_of(leaf: LedgerLeaf) -> tuple[RecordSource, StoredAdvisory | None]:
        source = _source(log, leaf)
        return source, _row_of_advisory(store, leaf, runs.get(leaf.run_id or ""), source)

    return dict(store.files.at_once(row_of, missing))


def _row_of_advisory(
    store: StoreContents, leaf: LedgerLeaf, run: StoredRun | None, source: RecordSource
) -> StoredAdvisory | None:
    assert leaf.run_id is not None, "the leaf of an advisory names both, and its link"
    assert leaf.advisory_id is not None
    assert leaf.link_sha256 is not None
    place = None if run is None else parse_path(run.artifact_path)
    if run is None or not isinstance(place, ArtifactPath):
        return None
    path = str(LinkPath(place.date, leaf.run_id, leaf.advisory_id))
    try:
        content = read_recorded(store, path, leaf.link_sha256, sources=(run.source, source))
    except IntegrityError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise
    return advisory_of_link(parse_object(content)[0], leaf.link_sha256, path, source)


def _needs_its_record(store: StoreContents, source: RecordSource) -> StoreNotReadyError:
    return StoreNotReadyError(
        f"The index of the store {store.name} lacks the advisory of {source.id}, whose link is not "
        "made yet, so only its record has it: run rmos index rebuild."
    )


def _source(log: LogId, leaf: LedgerLeaf) -> RecordSource:
    return RecordSource(log.epoch, RecordId(log.topic, log.partition, leaf.offset))
