"""What a hash or an advisory_id names: each found by an index, however many runs there are.

The hashes of artifacts and evaluations are indexed by their first digits: a page of the index then
holds three times as many, and each new run touches a page at random.
"""

import sqlite3
from typing import NamedTuple

from pipeline.storage.index.tables import HASH_START

MOST_NAMED = 100
"""More are not returned: who finds so many asks by something else."""

_START = f"substr(:text, 1, {HASH_START})"
_EXPLAINED = "source_offset IS NOT NULL"
# Every part is a constant of ours; values are bound. Without the plus SQLite puts the value in the
# place of the column inside substr, and scans.
_BY_HASH = f"""
    SELECT run_id, 'artifact', NULL FROM runs
        WHERE substr(artifact_sha256, 1, {HASH_START}) = {_START}
        AND +artifact_sha256 = :text AND {_EXPLAINED}
    UNION ALL SELECT run_id, 'program', NULL FROM runs
        WHERE gcode_sha256 = :text AND {_EXPLAINED}
    UNION ALL SELECT run_id, 'evaluation', NULL FROM runs
        WHERE substr(feasibility_sha256, 1, {HASH_START}) = {_START}
        AND +feasibility_sha256 = :text AND {_EXPLAINED}
    UNION ALL SELECT run_id, 'attachment', kind FROM attachments
        JOIN runs USING (run_id) WHERE sha256 = :text AND {_EXPLAINED}
    LIMIT {MOST_NAMED + 1}"""  # noqa: S608
_BY_ADVISORY = f"""
    SELECT run_id, 'advisory', kind FROM advisories
        WHERE advisory_id = :text AND link_path IS NOT NULL AND {_EXPLAINED}
    LIMIT {MOST_NAMED + 1}"""  # noqa: S608


class Named(NamedTuple):
    """A run, and what of it has the hash or the id.

    Attributes:
        what: `artifact`, `program`, `evaluation`, `attachment` or `advisory`.
        kind: Of the attachment or the advisory.
    """

    run_id: str
    what: str
    kind: str | None


def named_by_hash(connection: sqlite3.Connection, sha256: str) -> list[Named]:
    """Return what has this SHA-256; at most one more than `MOST_NAMED`."""
    return [Named(*row) for row in connection.execute(_BY_HASH, {"text": sha256})]


def named_by_advisory(connection: sqlite3.Connection, advisory_id: str) -> list[Named]:
    """Return the runs with a linked advisory of this id; likewise."""
    return [Named(*row) for row in connection.execute(_BY_ADVISORY, {"text": advisory_id})]
