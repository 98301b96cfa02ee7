"""The id of a record: topic, partition and offset, as `rmos.runs.requests/3/17`."""

import re
from typing import NamedTuple, Protocol, Self

Partition = tuple[str, int]
"""A topic and one of its partitions."""

_RECORD_ID = re.compile(r"([A-Za-z0-9._-]{1,249})/(0|[1-9][0-9]{0,9})/(0|[1-9][0-9]{0,17})")
"""A topic's name as Kafka takes it, a partition and an offset."""


class Located(Protocol):
    """A record, a confirmation of one or its id: what has a topic, a partition and an offset."""

    @property
    def topic(self) -> str:
        """Its topic."""

    @property
    def partition(self) -> int:
        """Its partition."""

    @property
    def offset(self) -> int:
        """Its offset."""


class RecordId(NamedTuple):
    """One record of one topic of one cluster, in any epoch of the store.

    A tuple, as is its source: there is one for every record, and it takes half of the time of
    a frozen dataclass.
    """

    topic: str
    partition: int
    offset: int

    @classmethod
    def of(cls, record: Located) -> Self:
        """Return the id of `record`."""
        return cls(record.topic, record.partition, record.offset)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the record that `text` names.

        Raises:
            ValueError: It names none.
        """
        found = _RECORD_ID.fullmatch(text)
        if found is None:
            raise ValueError(
                f"expected a record such as rmos.runs.requests/3/17, found {text[:200]!r}"
            )
        topic, partition, offset = found.groups()
        return cls(topic, int(partition), int(offset))

    @property
    def topic_partition(self) -> Partition:
        """The partition that holds it."""
        return self.topic, self.partition

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


class RecordSource(NamedTuple):
    """The record that something in a store comes from, and the epoch that its id is of."""

    epoch: int
    id: RecordId


class Resolved(Protocol):
    """What every outcome reports of its record, be it of a run or of an advisory."""

    @property
    def kind(self) -> str:
        """In one word."""

    @property
    def run_id(self) -> str | None:
        """Where it could be read."""

    @property
    def code(self) -> str | None:
        """Why there is a dead letter."""

    @property
    def message(self) -> str | None:
        """The same in one sentence."""
