"""A broker of a shop, as the pages see it: groups that flow and wait, events, and dead letters."""

import json
from collections.abc import Sequence

from aiokafka import ConsumerRecord

from pipeline.broker.admin.groups import GroupMember, GroupPosition
from pipeline.broker.admin.topics import OffsetRange
from pipeline.broker.event_reader import EventTail
from pipeline.broker.reading.dead_letters import DeadLetterContent, NewestDeadLetters
from pipeline.broker.reading.looks import BrokerLooks, FlowLook, GroupLook
from pipeline.core.dead_letters.letter import dead_letter, read_dead_letter
from pipeline.core.record import RecordId, RecordSource
from pipeline.settings import read_settings
from tests.builders import encode, run_request

LETTERS = "rmos.runs.dead-letters"
REQUESTS = "rmos.runs.requests"
AT_MS = 1_766_066_602_123


class ShopBroker(BrokerLooks):
    """What a broker answers, without one: each look shows the same, whenever it is taken."""

    def __init__(self, text: str) -> None:
        """Prepare; `text` stands wherever somebody else may write."""
        super().__init__(read_settings(bootstrap_servers="127.0.0.1:1"), EventTail())
        self.contents = _letters(text)
        for number, status in enumerate(("OK", "BLOCKED", "OK")):
            self.events.add(_event(number, status, text))
        self.rates.note(0.0, _look(0.0, 40, text).counts())

    async def flow(self) -> FlowLook:
        found = _look(10.0, 70, text=self.contents[0].letter.message)
        self.rates.note(found.at, found.counts())
        return found

    async def newest_dead_letters(self) -> NewestDeadLetters:
        found = NewestDeadLetters(there=len(self.contents) + 3, looked_at=len(self.contents))
        for content in self.contents:
            found.letters.add(content.letter)
        return found

    async def dead_letter(self, place: RecordId) -> DeadLetterContent | None:
        return next((each for each in self.contents if each.letter.place == place), None)


def _look(at: float, came: int, text: str) -> FlowLook:
    groups = []
    for name, topic, told in (
        ("persist", REQUESTS, came),
        ("advise", "rmos.advisories.requests", came - 7),
        ("audit", "rmos.audits.requests", came),
    ):
        positions = [GroupPosition(topic, number, 0, came, told) for number in range(2)]
        member = GroupMember("m", text, "10.0.0.7", tuple(each.place for each in positions))
        oldest_ms = AT_MS if told < came else None
        groups.append(GroupLook(f"rmos.{name}", "Stable", [member], positions, oldest_ms))
    return FlowLook(at, groups, {(LETTERS, 0): OffsetRange(0, came // 10)})


def _event(number: int, status: str, text: str) -> ConsumerRecord:
    value = {
        "outcome": "persisted",
        "status": status,
        "risk_level": "GREEN" if status == "OK" else "RED",
        "block_reason": None if status == "OK" else text,
        "run_id": f"run_{number}",
        "source": {"topic": REQUESTS, "partition": 0, "offset": number},
    }
    content = json.dumps(value).encode()
    return ConsumerRecord(
        "rmos.runs.events", 0, number, AT_MS + number, 0, None, content, None, 0, 0, ()
    )


def _letters(text: str) -> Sequence[DeadLetterContent]:
    """Return a text, bytes that are none, a request of which nothing is shown, and a tombstone."""
    raw = text.encode()
    refused = (
        (raw, "INVALID_JSON"),
        (bytes(range(256)) * 20, "INVALID_JSON"),
        (encode(run_request(run_id="green")), "KEY_MISMATCH"),
        (None, "TOMBSTONE"),
    )
    found = []
    for offset, (value, code) in enumerate(refused):
        made = dead_letter(
            (raw, value, [(text, raw), ("none", None), ("bytes", b"\x00\xff")]),
            RecordSource(1, RecordId(REQUESTS, 3, offset)),
            AT_MS,
            code=code,
            message=text,
            group="rmos.persist",
        )
        place = RecordId(LETTERS, 0, offset)
        listed = read_dead_letter(place, AT_MS, made.key, made.value, made.headers)
        found.append(DeadLetterContent(listed, made.key, made.value, made.headers))
    return found
