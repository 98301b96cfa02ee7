"""What a file of the index holds, by its format."""

from sqlalchemy import Index

from pipeline.disk.sqlite.schema import Schema
from pipeline.storage.index import tables
from pipeline.storage.index.tables import advisories, runs

# A listing leaves out the runs whose file no record explains.
Index(
    "runs_unexplained",
    runs.c.source_offset,
    runs.c.run_id,
    sqlite_where=runs.c.source_offset.is_(None),
    postgresql_where=runs.c.source_offset.is_(None),
)


Index(
    "advisories_unlinked",
    advisories.c.source_epoch,
    advisories.c.source_topic,
    advisories.c.source_partition,
    advisories.c.source_offset,
    sqlite_where=advisories.c.link_path.is_(None),
    postgresql_where=advisories.c.link_path.is_(None),
)

SCHEMA = Schema(
    format=4,
    metadata=tables.metadata,
    added=(
        tables.accepted_losses,
        tables.topic_ids,
        tables.reported_claims,
        tables.claims_in_hand,
        *tables.run_indexes,
        *tables.advisory_indexes,
    ),
)
