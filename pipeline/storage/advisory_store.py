"""The store of advisories: what a batch of advisory requests makes of links and rows.

The first well-formed request for an id makes its row. Its link is made with the row where the
run is there, else when that same record is given again later; never from another record. The
artifact of the run is neither read nor touched. The procedure of a batch, and what dying in
between leaves, is `batch_store`'s.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import TypeAlias

from pipeline.core.advisories.outcome import (
    AdvisoryOutcome,
    StoredAdvisory,
    settle_advisory,
    settle_rejected_advisory,
    stored_advisory,
)
from pipeline.core.advisories.verdict import JudgedAdvisory
from pipeline.core.envelope import Rejected
from pipeline.core.layout import LinkPath, attachment_path
from pipeline.core.record import RecordSource
from pipeline.core.runs.outcome import StoredRun
from pipeline.disk.durable_files import NewFile
from pipeline.ledger.leaf import LedgerLeaf, advisory_leaf
from pipeline.storage.awaited_blobs import NamedBlobs
from pipeline.storage.batch_store import BatchResult, BatchStore, JudgedRecord
from pipeline.storage.index import queries
from pipeline.storage.index.transaction import IndexTransaction

AdvisoryRecord: TypeAlias = JudgedRecord[JudgedAdvisory | Rejected]

_Key: TypeAlias = tuple[str, str]


class AdvisoryStore(BatchStore[JudgedAdvisory, AdvisoryOutcome]):
    """Advisories on disk. One thread at a time; others take turns by the store's lock."""

    def retry_links(self, records: Sequence[AdvisoryRecord]) -> BatchResult[AdvisoryOutcome]:
        """Store records that `commit` has judged before: their runs may have come meanwhile.

        They move no position, have their leaves, and count against no reject limit.

        Raises:
            StoreError: The disk or the index failed; nothing may be acknowledged.
        """
        return self._commit(records, None, is_consumed=False)

    def claims_to_link(self, topic: str, after: tuple[int, int], limit: int) -> list[RecordSource]:
        """Return claims of this epoch whose run is there and whose link is not made yet.

        Args:
            topic: The request topic.
            after: Partition and offset that the claims' records lie behind.
            limit: Most claims to return.

        Raises:
            StoreError: The index failed.
        """
        return self.index.claims_to_link(self.identity.epoch, topic, after, limit)

    def _plan(self, records: Sequence[AdvisoryRecord], transaction: IndexTransaction) -> "_Plan":
        plan = self._plan_as_intact(records, transaction)
        plan.damaged |= {each.key for each in plan.known.values() if not self._is_intact(each)}
        return plan

    def _plan_as_intact(
        self, records: Sequence[AdvisoryRecord], transaction: IndexTransaction
    ) -> "_Plan":
        return plan_advisories(records, transaction)

    def _is_intact(self, advisory: StoredAdvisory) -> bool:
        path = advisory.link_path
        return path is None or self._files.holds(path, advisory.link_sha256)


def plan_advisories(records: Sequence[AdvisoryRecord], transaction: IndexTransaction) -> "_Plan":
    """Say what a batch would do where every known link is intact; only rows are read."""
    judged = [r.verdict for r in records if isinstance(r.verdict, JudgedAdvisory)]
    known = queries.known_advisories(
        transaction.connection, list(dict.fromkeys(each.key for each in judged))
    )
    runs = queries.known_runs(
        transaction.connection, list(dict.fromkeys(each.run_id for each in judged))
    )
    plan = _Plan(records, known)
    advisories = dict(known)
    for record in records:
        plan.add(record, advisories, runs)
    return plan


@dataclass(slots=True)
class _Plan:
    """What a batch will do.

    Attributes:
        records: The batch.
        known: The advisories that the index has.
        damaged: Those whose link is not what their row says.
        advisories: The advisory of each record.
        claimed: Rows that are new.
        linked: Rows that waited and now get their link.
        to_link: The requests whose links are to be made.
    """

    records: Sequence[AdvisoryRecord]
    known: Mapping[_Key, StoredAdvisory]
    damaged: set[_Key] = field(default_factory=set)
    advisories: list[StoredAdvisory | None] = field(default_factory=list)
    claimed: dict[_Key, StoredAdvisory] = field(default_factory=dict)
    linked: dict[_Key, StoredAdvisory] = field(default_factory=dict)
    to_link: dict[_Key, tuple[str, JudgedAdvisory]] = field(default_factory=dict)

    def add(
        self,
        record: AdvisoryRecord,
        known: dict[_Key, StoredAdvisory],
        runs: Mapping[str, StoredRun],
    ) -> None:
        """Say what to do for one more record; `known` learns what it makes."""
        judged = record.verdict
        if isinstance(judged, Rejected):
            self.advisories.append(None)
            return
        path = _link_path(judged, runs.get(judged.run_id))
        advisory = known.get(judged.key)
        if advisory is None:
            advisory = stored_advisory(judged, record.source, path)
            self.claimed[judged.key] = advisory
            self._link(judged, path)
        elif path is not None and _makes_link(record, judged, advisory):
            advisory = replace(advisory, link_path=path)
            self.linked[judged.key] = advisory
            self._link(judged, path)
        known[judged.key] = advisory
        self.advisories.append(advisory)

    def _link(self, judged: JudgedAdvisory, path: str | None) -> None:
        if path is not None:
            self.to_link[judged.key] = (path, judged)

    def outcomes(self) -> list[AdvisoryOutcome]:
        return [
            _outcome(record, advisory, intact=self._is_intact(advisory))
            for record, advisory in zip(self.records, self.advisories, strict=True)
        ]

    def _is_intact(self, advisory: StoredAdvisory | None) -> bool:
        return advisory is None or advisory.link_path is None or advisory.key not in self.damaged

    def leaves(self) -> list[LedgerLeaf]:
        return [
            advisory_leaf(
                _outcome(record, advisory, intact=True),
                record.source,
                body_sha256=record.body_sha256,
                timestamp_ms=record.timestamp_ms,
            )
            for record, advisory in zip(self.records, self.advisories, strict=True)
        ]

    def failures(self) -> list[bool]:
        # Waiting is no failure: runs and advisories come by different topics.
        return [outcome.is_dead_letter for outcome in self.outcomes()]

    def new_files(self) -> list[NewFile]:
        """Return every blob of the batch once, then the links that name them."""
        blobs: dict[str, NewFile] = {}
        links = []
        for path, judged in self.to_link.values():
            own = _blob_files(judged)
            blobs |= own
            links.append(NewFile(path, judged.content, needs=frozenset(own)))
        return [*blobs.values(), *links]

    def named_blobs(self) -> NamedBlobs:
        linked = [judged for _, judged in self.to_link.values()]
        brought = {judged.blob.sha256 for judged in linked if judged.blob is not None}
        named = (judged.link.get("content_sha256") for judged in linked)
        return NamedBlobs.of(brought, (sha256 for sha256 in named if sha256 is not None))

    def expected_files(self, position: int) -> list[NewFile] | None:
        """Return the files that a record has made; None where its advisory has another link."""
        judged, advisory = self.records[position].verdict, self.advisories[position]
        if isinstance(judged, Rejected) or advisory is None:
            return []
        if judged.link_sha256 != advisory.link_sha256:
            return None
        if advisory.link_path is None:
            return []
        own = _blob_files(judged)
        return [*own.values(), NewFile(advisory.link_path, judged.content, needs=frozenset(own))]

    def note_not_stored(self, paths: frozenset[str]) -> None:
        self.damaged |= {key for key, (path, _) in self.to_link.items() if path in paths}

    def add_rows(self, transaction: IndexTransaction) -> None:
        # Also of a damaged link: its row is as if the file were right, so later deliveries agree.
        transaction.add_advisories(self.claimed.values())
        transaction.link_advisories(self.linked.values())


def _outcome(
    record: AdvisoryRecord, advisory: StoredAdvisory | None, *, intact: bool
) -> AdvisoryOutcome:
    if isinstance(record.verdict, Rejected) or advisory is None:
        assert isinstance(record.verdict, Rejected)
        return settle_rejected_advisory(record.verdict)
    return settle_advisory(record.verdict, advisory, record.source, intact=intact)


def _link_path(judged: JudgedAdvisory, run: StoredRun | None) -> str | None:
    """Return where the link lies: in the folder of its run, whatever its own date."""
    if run is None:
        return None
    date = PurePosixPath(run.artifact_path).parent.name
    return str(LinkPath(date, judged.run_id, judged.advisory_id))


def _makes_link(record: AdvisoryRecord, judged: JudgedAdvisory, advisory: StoredAdvisory) -> bool:
    """Tell whether this record may make the link of a claim that waits: only the claim's own."""
    return (
        advisory.link_path is None
        and advisory.source == record.source
        and advisory.link_sha256 == judged.link_sha256
    )


def _blob_files(judged: JudgedAdvisory) -> dict[str, NewFile]:
    blob = judged.blob
    if blob is None:
        return {}
    path = attachment_path(blob.sha256)
    return {path: NewFile(path, blob.content)}
