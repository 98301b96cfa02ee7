"""What an audit looks at: the whole store, some dates or runs, or one of several parts of it.

A part of an audit of the whole store is an audit by itself, known by its audit_id. It has the dates
whose number of the day leaves one remainder, and as many folders of blobs; the first has what is
left besides. What all parts are together follows from their reports alone.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from typing import Any, Final, Self

from pipeline.audit.rules.finding import (
    ARCHIVED,
    MISSING_BLOB,
    SEVERITIES,
    VERSIONS_NOT_SEEN,
    Asked,
    severity_of,
    verdicts,
)
from schemas.audit_finding import AuditCode
from schemas.audit_request import AuditRequest, AuditScope
from schemas.fields import is_audit_id
from schemas.timestamps import parse_timestamp

MOST_PARTS: Final = 100
_PART: Final = re.compile(r"(.+)\.part-([1-9][0-9]{0,2})-of-([1-9][0-9]{0,2})")
_DAY_US: Final = 86_400_000_000
_DAY_OF_1970: Final = date(1970, 1, 1).toordinal()
FIRST_US: Final = (1 - _DAY_OF_1970) * _DAY_US
"""Where the year 1 begins, in microseconds since 1970: the first time that has a date."""
END_US: Final = (date.max.toordinal() + 1 - _DAY_OF_1970) * _DAY_US
"""Where the year 9999 ends; a row that was forged may have any time, or no number."""


@dataclass(frozen=True, slots=True)
class AuditPart:
    """One of several parts of an audit of the whole store.

    Attributes:
        whole: The audit_id of the whole.
        number: From 1 on.
        count: How many there are.
    """

    whole: str
    number: int
    count: int

    @classmethod
    def of(cls, request: AuditRequest) -> Self | None:
        """Return which part a request asks for, if any."""
        return None if request.scope.all is None else cls.named(request.audit_id)

    @classmethod
    def named(cls, audit_id: str) -> Self | None:
        """Return the part that has this audit_id, if it is one of a part."""
        found = _PART.fullmatch(audit_id)
        if found is None:
            return None
        part = cls(found[1], int(found[2]), int(found[3]))
        is_one = part.number <= part.count <= MOST_PARTS
        return (
            part
            if is_one and is_audit_id(cls(part.whole, part.count, part.count).audit_id)
            else None
        )

    @classmethod
    def all_of(cls, whole: str, count: int) -> list[Self]:
        """Return all parts; none where their audit_ids would be too long."""
        parts = [cls(whole, number, count) for number in range(1, count + 1)]
        return parts if all(is_audit_id(part.audit_id) for part in parts) else []

    @property
    def audit_id(self) -> str:
        """Its own."""
        return f"{self.whole}.part-{self.number}-of-{self.count}"

    def has(self, number: int) -> bool:
        """Return whether it has the day or folder with this number."""
        return number % self.count == self.number - 1


def whole_id(request: AuditRequest) -> str:
    """Return the audit_id under which findings are published: that of the whole."""
    part = AuditPart.of(request)
    return request.audit_id if part is None else part.whole


def is_part_of(whole: str, audit_id: str) -> bool:
    """Return whether an audit is a part of another."""
    part = AuditPart.named(audit_id)
    return part is not None and part.whole == whole


@dataclass(frozen=True, slots=True)
class Extent:
    """What an audit looks at.

    Attributes:
        scope: As it was asked for.
        part: Which part of it, if not all.
    """

    scope: AuditScope
    part: AuditPart | None = None

    @property
    def is_everything(self) -> bool:
        """Whether it looks at the whole store by itself."""
        return self.scope.all is not None and self.part is None

    @property
    def takes_rest(self) -> bool:
        """Whether it looks at what has no date: it is the whole store, or the first part of it."""
        return self.scope.all is not None and (self.part is None or self.part.number == 1)

    def has_date(self, of_date: str) -> bool:
        """Return whether it looks at all runs of a date."""
        if self.part is not None:
            return self.part.has(_day_of(of_date))
        return self.is_everything or of_date in (self.scope.dates or ())

    def has_folder(self, prefix: str) -> bool:
        """Return whether it looks at the blobs whose hashes begin with these two hex digits."""
        return self.part.has(int(prefix, 16)) if self.part is not None else self.is_everything

    def spans(self, next_us: Callable[[int], int | None]) -> Iterator[tuple[int, int]]:
        """Yield of each date its first microsecond since 1970, and that of the day after.

        Args:
            next_us: Returns the first time, not before another, at which a run was made, if any;
                only of times that have a date.
        """
        for day in map(_day_of, self.scope.dates or ()):
            yield day * _DAY_US, (day + 1) * _DAY_US
        found = None if self.part is None else next_us(FIRST_US)
        while self.part is not None and found is not None:
            day = found // _DAY_US
            if self.part.has(day):
                yield day * _DAY_US, (day + 1) * _DAY_US
            found = next_us((day + 1) * _DAY_US)


def _day_of(of_date: str) -> int:
    """Return the number of a day since 1970-01-01; of a name like a date some fixed number."""
    try:
        return date.fromisoformat(of_date).toordinal() - _DAY_OF_1970
    except ValueError:
        return int(of_date.replace("-", ""))


OF_LEDGER: Final[frozenset[AuditCode]] = frozenset(
    {
        *("CHECKPOINT_DIFFERS", "TILE_DIFFERS", "LEAF_DIFFERS", "INTERNAL_ERROR"),
        *("OFFSET_WITHOUT_LEAF", "ANCHOR_BROKEN", "LOG_MISSING", "INDEX_MISSING"),
    }
)
"""Codes of what every part reads: each finds the same, unless the store has changed meanwhile."""


class JoinedFindings:
    """The findings of all parts, each once.

    Attributes:
        codes: How many of each code there are, by now.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self.codes = Counter[AuditCode]()
        self._of_ledger: set[bytes] = set()
        self._missing: dict[bytes, bytes] = {}

    def add(self, line: bytes, finding: Mapping[str, Any]) -> Iterator[bytes]:
        """Yield a finding of the next part, unless another part has the same."""
        code: AuditCode = finding["code"]
        if code in MISSING_BLOB:
            # Files of several dates may name it: the first one counts, of those that say the worst.
            blob = sha256(finding["path"].encode()).digest()
            self._missing[blob] = min(line, self._missing.get(blob, line), key=_severe_first)
        elif code not in OF_LEDGER or (digest := sha256(line).digest()) not in self._of_ledger:
            self.codes[code] += 1
            if code in OF_LEDGER:
                self._of_ledger.add(digest)
            yield line

    def end(self) -> Iterator[bytes]:
        """Yield the blobs that are missing, once all parts are there."""
        for _, line in sorted(self._missing.items()):
            self.codes[json.loads(line)["code"]] += 1
            yield line


def _severe_first(line: bytes) -> tuple[int, str, bytes]:
    finding = json.loads(line)
    return SEVERITIES.index(severity_of(finding["code"])), finding["expected"], line


def sum_of(
    reports: Sequence[Mapping[str, Any]], parts: Sequence[AuditPart], codes: Counter[AuditCode]
) -> dict[str, Any]:
    """Return the report of the whole; the same of the same.

    Counts add up. Of each log it has the smallest size that a part has read: all have read that.

    Args:
        reports: Of all its parts, in order.
        parts: All of them.
        codes: Of the findings that they have together.
    """
    counts = Counter[str]()
    for report in reports:
        counts.update(report["counts"])
    logs = _smallest(reports)
    leaves, anchored = (sum(log[name] for log in logs) for name in ("size", "anchored_size"))
    archived = sum(report["codes"].get(ARCHIVED, 0) for report in reports)
    of_logs = {"logs": len(logs), "leaves": leaves, "anchored_leaves": anchored}
    counted_once = of_logs | {"findings": codes.total()}
    counted: dict[str, int] = {ARCHIVED: archived} if archived else {}

    def is_known(verdict: str) -> bool:
        return all(each["verdicts"][verdict]["result"] != "unknown" for each in reports)

    seen = [VERSIONS_NOT_SEEN not in each["verdicts"]["integrity"]["reason"] for each in reports]
    first, whole = reports[0], parts[0].whole
    asked = Asked(
        first["mode"],
        is_known("completeness"),
        is_known("anchored"),
        leaves,
        anchored,
        archived,
        all(seen),
    )
    found = verdicts(codes, asked)
    found["integrity"]["reason"] += (
        f" Audited in {len(parts)} parts, each as of its own moment, so there is no store root."
    )
    return {
        **first,
        "audit_id": whole,
        "verdicts": found,
        "counts": {name: counts[name] for name in first["counts"]} | counted_once,
        "codes": dict(sorted((counted | dict(codes)).items())),
        "logs": logs,
        "started_at_utc": min((each["started_at_utc"] for each in reports), key=parse_timestamp),
        "finished_at_utc": max((each["finished_at_utc"] for each in reports), key=parse_timestamp),
    }


def _smallest(reports: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return of each log that all parts have read how far all of them have."""
    of_parts = [{log["origin"]: log for log in report["logs"]} for report in reports]
    common = [origin for origin in of_parts[0] if all(origin in each for each in of_parts)]
    return [
        min(
            (each[origin] for each in of_parts), key=lambda log: (log["size"], log["anchored_size"])
        )
        for origin in common
    ]
