"""Consumed records without a leaf, told as ranges: a log that is lost has one, not a million."""

from collections.abc import Iterator, Sequence

from pipeline.ledger.log_id import LogId
from pipeline.recovery.replay.findings import Finding
from pipeline.recovery.replay.history import SeenRecord


class LeafGaps:
    """Those of one partition."""

    def __init__(self, log: LogId) -> None:
        self._log = log
        self._gaps: list[tuple[int, int]] = []
        self._is_open = False

    def add(self, seen: Sequence[SeenRecord]) -> None:
        """Take the next records."""
        for each in seen:
            offset = each.record.source.offset
            if each.leaf is not None:
                self._is_open = False
            elif self._is_open:
                self._gaps[-1] = (self._gaps[-1][0], offset)
            else:
                self._gaps.append((offset, offset))
                self._is_open = True

    def findings(self) -> Iterator[Finding]:
        """Yield a finding for each range, which names it as an option of a replay does."""
        for first, last in self._gaps:
            place = f"{self._log.topic}/{self._log.partition}:{first}-{last + 1}"
            yield Finding("missing", "leaf", place, f"leaves in {self._log.path}")
