"""The plan of a batch: the outcome of each record, with its leaf, files and row.

It is a pure function of the records and of the rows that the index has under their ids. Each record
is resolved once, as if every file were intact: whether it is, a store finds out afterwards.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

import msgspec
from msgspec import structs

from pipeline.core.advisories.outcome import AdvisoryOutcome, StoredAdvisory
from pipeline.core.dead_letters.carried_record import ReadContent, sha256_of_content
from pipeline.core.envelope import Rejected
from pipeline.core.record import Partition, RecordSource
from pipeline.core.runs.outcome import Outcome, StoredRun
from pipeline.core.store.files import NewFile
from pipeline.ledger.leaf import LedgerLeaf, leaf_of_outcome
from pipeline.ledger.log_id import LogId
from pipeline.storage.index.queries import NewRows

Verdict = TypeVar("Verdict")
AnyOutcome = TypeVar("AnyOutcome", bound=Outcome | AdvisoryOutcome)
StoredRow: TypeAlias = StoredRun | StoredAdvisory

INTERNAL_ERROR = "INTERNAL_ERROR"
"""Code of a record that our program once could not judge."""


class JudgedRecord(msgspec.Struct, Generic[Verdict], frozen=True, gc=False):
    """One record with its verdict.

    Attributes:
        source: Where the request topic keeps it.
        verdict: Its verdict.
        timestamp_ms: Its broker time there.
        body_sha256: Of its untouched value; of no bytes for a tombstone.
    """

    source: RecordSource
    verdict: Verdict
    timestamp_ms: int
    body_sha256: str

    @classmethod
    def of(
        cls, source: RecordSource, verdict: Verdict, value: ReadContent | None, timestamp_ms: int
    ) -> "JudgedRecord[Verdict]":
        """Return the record with this `value` and `verdict`."""
        return JudgedRecord(
            source, verdict, timestamp_ms, sha256_of_content(b"" if value is None else value)
        )

    @property
    def log(self) -> LogId:
        """The log that its leaf belongs to."""
        return LogId(self.source.epoch, self.source.id.topic, self.source.id.partition)


def apply_recorded_verdict(
    record: JudgedRecord[Verdict | Rejected], leaf: LedgerLeaf | None
) -> JudgedRecord[Verdict | Rejected]:
    """Return the record with the verdict of its leaf, if that is INTERNAL_ERROR; else as it is.

    Args:
        record: As this program judges it.
        leaf: That its offset has already; None where it has none.
    """
    if leaf is None or leaf.code != INTERNAL_ERROR:
        return record
    rejected = Rejected(
        INTERNAL_ERROR,
        "This record once met a fault of the program, and the ledger says so for ever: redrive "
        "its dead letter.",
        leaf.run_id,
    )
    return structs.replace(record, verdict=rejected)


class PlannedRecord(msgspec.Struct, Generic[Verdict, AnyOutcome], frozen=True, gc=False):
    """What becomes of one record, where every file is intact.

    Attributes:
        record: The record.
        row: The run or advisory that its id stands for; None for a rejected record.
        outcome: What becomes of it.
        is_failure: Whether the outcome counts against the reject limit.
        files: What it makes or has made, blobs first, its document last; None where the store
            knows its id with another document.
        is_new: Whether the files are to be made in this batch.
        attachments: SHA-256 of those that its document names or that come with it.
    """

    record: JudgedRecord[Verdict | Rejected]
    row: StoredRow | None
    outcome: AnyOutcome
    is_failure: bool
    files: Sequence[NewFile] | None = ()
    is_new: bool = False
    attachments: Sequence[str] = ()

    @property
    def leaf(self) -> LedgerLeaf:
        """Its leaf: the same whether files are intact or not."""
        record = self.record
        return leaf_of_outcome(
            self.outcome,
            record.source,
            body_sha256=record.body_sha256,
            timestamp_ms=record.timestamp_ms,
        )

    @property
    def path(self) -> str | None:
        """Where its document is, on whose state the outcome depends; None where there is none."""
        return None if self.row is None else path_of_row(self.row)


def path_of_row(row: StoredRow) -> str | None:
    """Return where the document of a row is; None where an advisory waits for its run."""
    return row.artifact_path if isinstance(row, StoredRun) else row.link_path


def sha256_of_row(row: StoredRow) -> str:
    """Return the hash of that document."""
    return row.artifact_sha256 if isinstance(row, StoredRun) else row.link_sha256


@dataclass(frozen=True, slots=True)
class BatchPlan(Generic[Verdict, AnyOutcome]):
    """What a batch will do, and what becomes of each of its records.

    Attributes:
        records: In the order of the batch.
        known: The rows that the index had before, each by its id.
        rows: What is to be written into it.
    """

    records: Sequence[PlannedRecord[Verdict, AnyOutcome]]
    known: Mapping[Any, StoredRow]
    rows: NewRows

    def new_files(self) -> list[NewFile]:
        """Return the files to create: every blob once, then the documents that name them."""
        blobs: dict[str, NewFile] = {}
        documents = []
        for each in self.records:
            if each.is_new and each.files:
                *needed, document = each.files
                for file in needed:
                    blobs[file.path] = file
                documents.append(document)
        return [*blobs.values(), *documents]

    def attachments(self) -> list[str]:
        """Return the SHA-256 of every attachment that the new documents name or bring."""
        named = (sha256 for each in self.records if each.is_new for sha256 in each.attachments)
        return list(dict.fromkeys(named))


def first_offsets(records: Sequence[JudgedRecord[Verdict]]) -> dict[Partition, int]:
    """Return the first offset of a batch in each partition."""
    # In offset order within each partition: of those in reverse the last one stays.
    sources = (record.source.id for record in reversed(records))
    return {(topic, partition): offset for topic, partition, offset in sources}


def next_offsets(records: Sequence[JudgedRecord[Verdict]]) -> dict[Partition, int]:
    """Return the offset after the last one of a batch in each partition."""
    following: dict[Partition, int] = {}
    for record in records:
        topic, partition, offset = record.source.id
        following[topic, partition] = max(following.get((topic, partition), 0), offset + 1)
    return following
