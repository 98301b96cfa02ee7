"""What a judged record makes, whichever kind of request it was."""

from collections.abc import Iterable
from typing import TypeAlias

from pipeline.core.advisories.outcome import StoredAdvisory
from pipeline.core.advisories.verdict import JudgedAdvisory
from pipeline.core.envelope import Rejected
from pipeline.core.layout import attachment_path
from pipeline.core.runs.outcome import StoredRun
from pipeline.core.runs.verdict import JudgedRun
from pipeline.ledger.leaf import LedgerLeaf

Verdict: TypeAlias = JudgedRun | JudgedAdvisory | Rejected
Row: TypeAlias = StoredRun | StoredAdvisory
Key: TypeAlias = str | tuple[str, str]

FIRST_KINDS = frozenset({"run", "advisory"})
"""Leaves of records that made a run or claimed an advisory."""


def key_of(verdict: JudgedRun | JudgedAdvisory) -> Key:
    """Return what only one request can have: the run_id, or run_id and advisory_id."""
    return verdict.run_id if isinstance(verdict, JudgedRun) else verdict.key


def expected_sha256(verdict: JudgedRun | JudgedAdvisory) -> str:
    """Return the hash of the artifact or of the link."""
    return verdict.artifact_sha256 if isinstance(verdict, JudgedRun) else verdict.link_sha256


def sha256_of_row(row: Row) -> str:
    """Return the hash of the artifact or of the link that a row knows."""
    return row.artifact_sha256 if isinstance(row, StoredRun) else row.link_sha256


def path_of_row(row: Row) -> str | None:
    """Return where that lies; None of a link that waits for its run."""
    return row.artifact_path if isinstance(row, StoredRun) else row.link_path


def sha256_of_leaf(leaf: LedgerLeaf) -> str | None:
    """Return the hash of the artifact or of the link that a leaf tells of."""
    return leaf.sha256 or leaf.link_sha256


def uploads_of(verdict: JudgedRun | JudgedAdvisory) -> list[str]:
    """Return the paths of the blobs that are named and came with no message, each once."""
    if isinstance(verdict, JudgedAdvisory):
        named = verdict.claim.content_sha256
        return [attachment_path(named)] if named is not None and verdict.blob is None else []
    inline = {blob.sha256 for blob in verdict.built.blobs}
    return _paths(
        ref["sha256"]
        for ref in verdict.built.index_fields["attachments"]
        if ref["sha256"] not in inline
    )


def _paths(blobs: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(attachment_path(sha256) for sha256 in blobs))
