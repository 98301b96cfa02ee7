"""Rows of an older store, read one after the other and mapped: what each would make."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from pipeline.legacy.attachments import blob_names
from pipeline.legacy.blobs import BlobState
from pipeline.legacy.mapping import LegacyRowError, MappedRow, advisories_of, map_row
from pipeline.legacy.source import LegacySource, SourceRow
from pipeline.legacy.v1_mode.row import LegacyMark, mark_of


@dataclass(frozen=True, slots=True)
class CarriedRow:
    """A row that can be carried over.

    Attributes:
        row: As it was parsed.
        mapped: The message that carries it, and what it makes.
        blobs: What was found of each content that it names.
        unread: Files of advisories beside it that cannot be read, and why: they stay behind.
    """

    run_id: str
    row: dict[str, Any]
    mapped: MappedRow
    blobs: dict[str, BlobState]
    unread: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A row that cannot be carried over, and why."""

    run_id: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class OwnRow:
    """A row that this program has written: its run comes from the request topic, not from here."""

    run_id: str
    mark: LegacyMark


ReadRow: TypeAlias = CarriedRow | RefusedRow | OwnRow


def read_source(source: LegacySource) -> Iterator[ReadRow]:
    """Yield every row of `source`, in its order.

    Raises:
        InputError: An attachment cannot be read.
    """
    for each in source.rows:
        try:
            yield _read(source, each)
        except LegacyRowError as error:
            yield RefusedRow(each.run_id, error.code, str(error))


def _read(source: LegacySource, each: SourceRow) -> CarriedRow | OwnRow:
    row = each.value()
    mark = mark_of(row)
    if mark is not None:
        return OwnRow(each.run_id, mark)
    links, unread = each.advisories()
    search = source.blobs.find(blob_names(row, advisories_of(row, links)))
    mapped = map_row(each.run_id, row, origin=source.format, blobs=search.found, links=links)
    return CarriedRow(each.run_id, row, mapped, search.states, tuple(unread))
