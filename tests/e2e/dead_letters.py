"""Dead letters to put on their topics, as a worker would, and what is on a topic afterwards."""

from collections.abc import Iterable, Sequence

from pipeline.core.dead_letters.letter import dead_letter
from pipeline.core.dead_letters.redrive import RedriveResult
from pipeline.core.dead_letters.selection import DeadLetterFilter
from pipeline.core.record import RecordId, RecordSource
from pipeline.recovery.redriving import redrive
from pipeline.settings import Settings
from tests.e2e.kafka_reading import Headers, Sending, produce

TIMESTAMP_MS = 1_766_066_602_123


def dead_letter_of(
    source: RecordId,
    value: bytes | None = b"{}",
    *,
    key: bytes | None = b"run_1",
    headers: Headers = (),
    code: str = "INVALID_JSON",
) -> Sending:
    """Return the dead letter of a record, for the partition that a worker sends it to."""
    letter = dead_letter(
        (key, value, headers),
        RecordSource(1, source),
        TIMESTAMP_MS,
        code=code,
        message=f"Expected something else than {code}.",
        group="rmos.persist",
    )
    return Sending(letter.key, letter.value, letter.headers, source.partition % 3)


async def bury(settings: Settings, letters: Iterable[Sending], area: str = "runs") -> None:
    """Put dead letters on their topic."""
    await produce(settings, letters, topic=f"{settings.prefix}.{area}.dead-letters")


async def redriven(
    settings: Settings, wanted: DeadLetterFilter, *, again: bool = False, dry_run: bool = False
) -> list[RedriveResult]:
    results = redrive(settings, wanted, again=again, dry_run=dry_run)
    return [result async for result in results]


def by_status(results: Sequence[RedriveResult]) -> dict[str, list[str]]:
    """Return the refused records by the status of their redrive."""
    found: dict[str, list[str]] = {}
    for result in results:
        found.setdefault(result.status, []).append(str(result.letter.identity))
    return found
