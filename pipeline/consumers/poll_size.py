"""How many records to ask for in one poll, so that a poll stays near 16 MiB of records.

Kafka's client bounds a poll by records alone. The size of those to come is guessed from those
that came: after a jump from small to large ones a single poll can exceed the limit, by what the
client has fetched.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.consumers.raw_records import Record
from pipeline.core.dead_letters.carried_record import held_bytes

POLL_BYTES = 16 * 1024 * 1024
FIRST_RECORDS = 64


@dataclass(slots=True)
class PollSize:
    """The number of records to ask for next.

    Attributes:
        limit_records: Never more than this.
        records: How many to ask for.
    """

    limit_records: int
    records: int = FIRST_RECORDS

    def __post_init__(self) -> None:
        self.records = min(self.records, self.limit_records)

    def learn(self, polled: Iterable[Record]) -> None:
        """Take note of the sizes of a poll. At most twice as many are asked for as before."""
        sizes = [held_bytes(record) for record in polled]
        if not sizes:
            return
        mean_bytes = max(1, sum(sizes) // len(sizes))
        self.records = max(1, min(POLL_BYTES // mean_bytes, 2 * self.records, self.limit_records))
