"""What a hash or an advisory_id names: each found by an index, however many runs there are."""

from collections.abc import Container, Mapping
from functools import cache
from typing import NamedTuple

from sqlalchemy import text

from pipeline.storage.index.database import Reader, driver_text, text_for
from pipeline.storage.index.merging import ARRIVALS, without_search
from pipeline.storage.index.tables import ARRIVAL, hash_start

MOST_NAMED = 100
"""More are not returned: who finds so many asks by something else."""

_EXPLAINED = "source_offset IS NOT NULL"
_OF_LINKS = f"link_path IS NOT NULL AND {_EXPLAINED}"


def _of_runs(column: str, what: str, dialect_name: str) -> str:
    # Every part is a constant of ours; values are bound. Without the plus SQLite puts the value in
    # the place of the column inside substr, and reads all runs of the part.
    return f"""SELECT run_id, '{what}', NULL FROM parts CROSS JOIN runs
        WHERE {ARRIVAL} = parts.key AND {hash_start(column)} = {hash_start(":text")}
        AND {without_search(column, dialect_name)} = :text AND {_EXPLAINED}"""  # noqa: S608


@cache
def by_hash(dialect_name: str) -> str:
    """Return the query of what has the SHA-256 `text`."""
    name = dialect_name
    query = f"""{ARRIVALS}
    {_of_runs("artifact_sha256", "artifact", name)}
    UNION ALL {_of_runs("gcode_sha256", "program", name)}
    UNION ALL {_of_runs("feasibility_sha256", "evaluation", name)}
    UNION ALL SELECT run_id, 'attachment', kind FROM attachments
        JOIN runs USING (run_id) WHERE sha256 = :text AND {_EXPLAINED}
    UNION ALL SELECT run_id, 'advisory', kind FROM advisories
        WHERE content_sha256 = :text AND {_OF_LINKS}
    LIMIT {MOST_NAMED + 1}"""  # noqa: S608
    return text_for(text(query), dialect_name)


BY_ADVISORY = text(f"""
    SELECT run_id, 'advisory', kind FROM advisories
        WHERE advisory_id = :text AND {_OF_LINKS}
    LIMIT {MOST_NAMED + 1}""")  # noqa: S608


class Named(NamedTuple):
    """A run, and what of it has the hash or the id.

    Attributes:
        what: `artifact`, `program`, `evaluation`, `attachment` or `advisory`.
        kind: Of the attachment or the advisory.
    """

    run_id: str
    what: str
    kind: str | None


def named_by_hash(connection: Reader, sha256: str) -> list[Named]:
    """Return what has this SHA-256; at most one more than `MOST_NAMED`."""
    return [
        Named(*row)
        for row in connection.execute(by_hash(connection.dialect_name), {"text": sha256})
    ]


def named_by_advisory(connection: Reader, advisory_id: str) -> list[Named]:
    """Return the runs with a linked advisory of this id; likewise."""
    query = driver_text(BY_ADVISORY, connection.dialect_name)
    return [Named(*row) for row in connection.execute(query, {"text": advisory_id})]


_PATHS_OF_RUNS = text(
    "SELECT artifact_path FROM attachments JOIN runs USING (run_id) WHERE sha256 = :sha256"
)
_PATHS_OF_LINKS = text("SELECT link_path FROM advisories WHERE content_sha256 = :sha256")


def named_by_others(connection: Reader, named: Mapping[str, Container[str]]) -> set[str]:
    """Return which attachments something else names too; an advisory that waits counts.

    Args:
        connection: To the index.
        named: By the SHA-256 of the attachment the paths of the files that are known to name it.
    """
    queries = [
        driver_text(query, connection.dialect_name) for query in (_PATHS_OF_RUNS, _PATHS_OF_LINKS)
    ]
    return {
        sha256
        for sha256, files in named.items()
        for query in queries
        if any(path not in files for (path,) in connection.execute(query, {"sha256": sha256}))
    }
