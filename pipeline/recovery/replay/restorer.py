"""Makes again what is missing of one chunk after another: steps 4 to 6 of `restore`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.core.envelope import Rejected
from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.runs.outcome import RecordSource
from pipeline.disk.durable_files import Creation
from pipeline.recovery.replay.comparison import StoreComparison
from pipeline.recovery.replay.expected import key_of, sha256_made, sha256_of_leaf, uploads_of
from pipeline.recovery.replay.findings import Finding, Tally, place_of, what_lies_at
from pipeline.recovery.replay.history import SeenRecord
from pipeline.recovery.replay.judged_chunks import JudgedChunk
from pipeline.recovery.replay.partitions import ReplayedPartition
from pipeline.recovery.replay.ranges import Place
from pipeline.recovery.replay.request_topics import RequestTopic
from pipeline.recovery.replay.restore_steps import RestoreSteps
from pipeline.storage.batch_store import INTERNAL_ERROR, BatchStore
from pipeline.storage.index.run_index import IndexTransaction
from pipeline.storage.restoring import RestoredFile

_THERE = {Creation.SAME, Creation.CREATED}
_FIRST_OUTCOMES = {"persisted", "linked", "waiting"}


class Restorer:
    """Restores into the stores of all request topics, which are one folder."""

    def __init__(
        self,
        root: Path,
        stores: Mapping[str, BatchStore[Any, Any]],
        steps: Mapping[Place, RestoreSteps],
        tally: Tally,
    ) -> None:
        """Begin with nothing restored.

        Args:
            root: Folder of the store.
            stores: What keeps the records of each topic, by its name.
            steps: What is to be done for each partition.
            tally: Gets what is found.
        """
        self._stores = stores
        self._steps = steps
        self._tally = tally
        index = next(iter(stores.values())).index
        self._comparison = StoreComparison(root, index, tally)

    def handle(self, partition: ReplayedPartition, chunk: JudgedChunk) -> None:
        """Restore what some records of a partition have made.

        Raises:
            IntegrityError: A log is not what was written, or an offset has another leaf.
            StoreError: The disk or the index failed.
        """
        steps = self._steps[partition.place]
        seen = steps.history.see(chunk)
        self._tally.counts["records"] += len(seen)
        known = [each for each in seen if steps.is_known(each)]
        new = [each for each in seen if steps.is_to_consume(each)]
        unsettled = set()
        if known:
            unsettled |= self._make_again(partition, known, follows_on=steps.follows_on)  # 4.
        if new:
            unsettled |= self._consume(partition, new)  # 5.
        open_ends = [each for each in seen if each.record.source in unsettled]
        if open_ends:
            self._comparison.compare(partition.topic, open_ends)  # 6.

    def _make_again(
        self, partition: ReplayedPartition, known: Sequence[SeenRecord], *, follows_on: bool
    ) -> set[RecordSource]:
        """Restore what known records have made; return those that are to be looked at."""
        for each in known:
            if each.is_internal_error:
                self._tally.add(Finding("internal_error", "leaf", place_of(each.record.source)))
        firsts = self._firsts(partition.topic, known)
        safe = [each.record for each in firsts if _makes_what_its_leaf_tells(each)]
        # Only where nothing was left out before may the store say that it has come so far.
        reached = {partition.place: known[-1].record.source.offset + 1} if follows_on else {}
        restoration = self._stores[partition.topic.name].restore(safe, reached)
        for file in restoration.files:
            self._count(file)
        settled = {record.source for record in safe} - set(restoration.unlike)
        settled -= {file.source for file in restoration.files if file.creation not in _THERE}
        return {
            each.record.source
            for each in firsts
            if each.record.source not in settled or uploads_of(each.record.verdict)
        }

    def _firsts(self, topic: RequestTopic, known: Sequence[SeenRecord]) -> list[SeenRecord]:
        """Return those of `known` that made a run or claimed an advisory."""
        with self._stores[topic.name].index.reading() as connection:
            records = [each.record for each in known]
            rows = topic.plan(records, IndexTransaction(connection)).known
        return [
            each
            for each in known
            if not isinstance(each.record.verdict, Rejected)
            and each.was_first(rows.get(key_of(each.record.verdict)))
        ]

    def _count(self, file: RestoredFile) -> None:
        if file.creation is Creation.CREATED:
            path, sha256 = file.file.path, sha256_of_bytes(file.file.content)
            what, place = what_lies_at(path), place_of(file.source)
            self._tally.add(Finding("restored", what, path, sha256, source=place))
        elif file.creation is Creation.SAME:
            self._tally.counts["intact"] += 1

    def _consume(
        self, partition: ReplayedPartition, new: Sequence[SeenRecord]
    ) -> set[RecordSource]:
        """Let the store consume records; return those that are to be looked at."""
        result = self._stores[partition.topic.name].commit([each.record for each in new])
        self._tally.counts["consumed"] += len(new)
        unsettled = set()
        for each, outcome in zip(new, result.outcomes, strict=True):
            source = each.record.source
            if outcome.code == INTERNAL_ERROR:
                self._tally.add(Finding("internal_error", "leaf", place_of(source)))
            is_first = outcome.kind in _FIRST_OUTCOMES and uploads_of(each.record.verdict)
            if is_first or outcome.code == "ARTIFACT_CORRUPT":
                unsettled.add(source)
        return unsettled


def _makes_what_its_leaf_tells(seen: SeenRecord) -> bool:
    """Tell whether the program makes the very bytes that are in the ledger for ever."""
    return seen.leaf is None or sha256_of_leaf(seen.leaf) == sha256_made(seen.record.verdict)
