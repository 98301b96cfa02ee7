"""Rows of a new index whose files are archived: they are made of their records."""

from dataclasses import replace

from pipeline.core.layout import LinkPath, date_of
from pipeline.core.record import RecordSource
from pipeline.core.store.contents import StoreContents
from pipeline.errors import IntegrityError
from pipeline.ledger.leaf import LedgerLeaf
from pipeline.recovery.rebuild.rows import RebuiltRows
from pipeline.storage.archives import Archives, is_gone


def take_archives(store: StoreContents, rows: RebuiltRows) -> int:
    """Let rows whose file is archived say so; return how many they are.

    Raises:
        IntegrityError: Of something archived there is neither the file nor the record.
    """
    archived = _Archived(store, rows)
    lost = sum(archived.is_lost(*each) for each in rows.wanted)
    if lost:
        raise IntegrityError(
            f"Nothing was replaced: {lost:,} runs and advisories are archived, and the topics have "
            "their records no more, so nothing here has their rows. Put their files back first "
            "(rmos archive restore FILE)."
        )
    return archived.mark_runs() + archived.mark_links()


class _Archived:
    """What the records of the archived dates say of rows."""

    def __init__(self, store: StoreContents, rows: RebuiltRows) -> None:
        self._files = store.files
        self._rows = rows
        self._archives = Archives(store)

    def is_lost(self, source: RecordSource, leaf: LedgerLeaf) -> bool:
        """Return whether a leaf without a row is of something archived."""
        if leaf.path is not None:
            return self._is_archived(leaf.path, source)
        run_id, advisory_id = str(leaf.run_id), str(leaf.advisory_id)
        known = self._rows.runs.rows.get(run_id)
        if known is None:
            return False  # Its run is lost too, and counted.
        path = str(LinkPath(date_of(known.run.artifact_path), run_id, advisory_id))
        return self._is_archived(path, known.run.source, source)

    def mark_runs(self) -> int:
        """Mark rows of runs; return how many."""
        marked = 0
        for row in self._rows.runs.rows.values():
            if not row.has_file and self._is_archived(row.run.artifact_path, row.run.source):
                row.is_archived = True
                marked += 1
        return marked

    def mark_links(self) -> int:
        """Let rows of advisories name their link, which was made once; return how many."""
        marked, advisories = 0, self._rows.advisories.rows
        for key, link in advisories.items():
            known = self._rows.runs.rows.get(link.run_id)
            if link.link_path is None and known is not None:
                path = str(LinkPath(date_of(known.run.artifact_path), *key))
                if self._is_archived(path, known.run.source, link.source):
                    advisories[key] = replace(link, link_path=path)
                    marked += 1
        return marked

    def _is_archived(self, path: str, *sources: RecordSource | None) -> bool:
        covering = self._archives.covering(path, *sources)
        return covering is not None and is_gone(self._files, path)
