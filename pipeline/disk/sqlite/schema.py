"""What a file of the index holds: tables that its user declares, of a format that it numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Index, MetaData, Table


@dataclass(frozen=True, slots=True)
class Schema:
    """The tables of an index.

    Attributes:
        format: `user_version` of the file. Another one is rebuilt, never converted: the index is
            derived.
        metadata: All tables with their indexes.
        added: Missing in an older index of this format; made when it is opened for writing.
    """

    format: int
    metadata: MetaData
    added: Sequence[Table | Index] = ()
