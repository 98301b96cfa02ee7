"""Where the broker keeps a record, as a person names it: `rmos.runs.requests/3/17`."""

import re
from dataclasses import dataclass

_PLACE = re.compile(r"([A-Za-z0-9._-]{1,249})/(0|[1-9][0-9]{0,9})/(0|[1-9][0-9]{0,17})")
"""A topic's name as Kafka takes it, a partition and an offset."""


@dataclass(frozen=True, slots=True, order=True)
class RecordPlace:
    """One record of one topic, whatever the epoch of the store."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


def parse_place(text: str) -> RecordPlace:
    """Return the record that `text` names.

    Raises:
        ValueError: It names none.
    """
    found = _PLACE.fullmatch(text)
    if found is None:
        message = f"expected a record such as rmos.runs.requests/3/17, found {text[:200]!r}"
        raise ValueError(message)
    topic, partition, offset = found.groups()
    return RecordPlace(topic, int(partition), int(offset))


@dataclass(frozen=True, slots=True)
class RecordSource:
    """One record: the epoch of the store, and where the broker keeps it."""

    epoch: int
    topic: str
    partition: int
    offset: int
