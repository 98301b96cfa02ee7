"""Dead letters come back to where they were refused, once, on the real broker."""

import asyncio
import os
import signal
import sys

import pytest
from aiokafka import ConsumerRecord

from pipeline.broker.reading import dead_letters
from pipeline.broker.reading import ranges as topic_reader
from pipeline.broker.reading.dead_letters import read_dead_letters, read_redrives
from pipeline.broker.sending import transactions
from pipeline.broker.sending.batches import BatchSender, Message
from pipeline.broker.sending.transactions import TransactionalSender
from pipeline.core.dead_letters.carried_record import name_of_bytes
from pipeline.core.dead_letters.redrive import Redrive
from pipeline.core.dead_letters.selection import DeadLetterFilter
from pipeline.core.record import RecordId
from pipeline.errors import NotFoundError, RefusedError
from pipeline.recovery.redriving import transactional_id
from pipeline.settings import Settings
from pipeline.topics import BROKER_MESSAGE_LIMIT_BYTES
from tests.builders import sha256
from tests.e2e.dead_letters import bury, by_status, dead_letter_of, redriven
from tests.e2e.kafka_reading import Sending, header_dict, produce, read_topic, wait_until
from tests.e2e.worker_processes import REPOSITORY, worker_environment

pytestmark = [pytest.mark.e2e, pytest.mark.every_topic]

ALL = DeadLetterFilter()
FOREIGN = (
    ("traceparent", b"00-1"),
    ("rmos-error-code", b"forged"),
    ("rmos-body-size", b"9"),
    ("no value", None),
)


def run_place(settings: Settings, partition: int, offset: int) -> RecordId:
    return RecordId(settings.topics.run_requests, partition, offset)


async def test_a_record_comes_back_as_it_was_in_its_partition_once(settings: Settings) -> None:
    first, second = run_place(settings, 7, 3), run_place(settings, 2, 5)
    await bury(settings, [dead_letter_of(first, b"\xff\x00", headers=FOREIGN)])
    await bury(settings, [dead_letter_of(second, b"{}", key=None)])
    results = await redriven(settings, ALL)
    assert {each: sorted(names) for each, names in by_status(results).items()} == {
        "redriven": sorted([str(second), str(first)])
    }
    found = {each.partition: each for each in await read_topic(settings, first.topic)}
    assert {each.offset for each in found.values()} == {0}
    assert (found[7].key, found[7].value) == (b"run_1", b"\xff\x00")
    assert tuple(found[7].headers) == (
        *FOREIGN,
        ("rmos-redrive-of", str(first).encode()),
        ("rmos-attempt", b"2"),
    )
    assert (found[2].key, found[2].value) == (None, b"{}")
    # The memory says where each is now.
    redrives = await read_redrives(settings)
    assert redrives[first].redriven_as == run_place(settings, 7, 0)
    assert {result.letter.source: result.redriven_as for result in results} == {
        source: redrive.redriven_as for source, redrive in redrives.items()
    }

    assert set(by_status(await redriven(settings, ALL))) == {"redriven before"}
    assert len(await read_topic(settings, first.topic)) == 2
    named = DeadLetterFilter(sources=frozenset({first}))
    assert by_status(await redriven(settings, named, again=True)) == {"redriven": [str(first)]}
    assert len(await read_topic(settings, first.topic)) == 3


async def odd_records(settings: Settings, topic: str) -> list[ConsumerRecord]:
    """Return records whose header names no other client reads, once there are some."""
    found: list[ConsumerRecord] = []

    async def are_some() -> bool:
        found[:] = [each async for each in topic_reader.read_topic(settings, topic)]
        return bool(found)

    await wait_until(are_some, f"records of {topic}")
    return found


async def test_header_names_of_any_bytes_come_back(settings: Settings) -> None:
    odd = (name_of_bytes(b"\xff\xfe"), b"x")
    source = run_place(settings, 1, 2)
    letter = dead_letter_of(source, b"{", headers=(odd,))
    sender = BatchSender(settings)
    topic = f"{settings.prefix}.runs.dead-letters"
    await sender.send([Message(topic, 1, letter.key, letter.value, list(letter.headers))])
    await sender.stop()
    assert by_status(await redriven(settings, ALL)) == {"redriven": [str(source)]}
    assert (await odd_records(settings, source.topic))[0].headers[0] == odd
    # A batch that did not belong to the transaction would be there without its memory, too.
    sender = TransactionalSender(settings, transactional_id(settings.prefix))
    await sender.start()

    def fails(_: object) -> list[Message]:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await sender.send([Message(source.topic, 1, b"k", b"never", [odd])], fails)
    assert [each.value for each in await odd_records(settings, source.topic)] == [b"{"]


async def test_a_dry_run_sends_nothing_and_shuts_nobody_out(settings: Settings) -> None:
    source = run_place(settings, 0, 1)
    await bury(settings, [dead_letter_of(source)])
    sender = TransactionalSender(settings, transactional_id(settings.prefix))
    await sender.start()
    results = await redriven(settings, DeadLetterFilter(), dry_run=True)
    assert by_status(results) == {"ready": [str(source)]}
    assert await read_topic(settings, source.topic) == []
    assert await read_redrives(settings) == {}
    await sender.send([Message(source.topic, 0, b"k", b"v")], lambda _: [])
    await sender.stop()
    assert len(await read_topic(settings, source.topic)) == 1


async def test_records_delivered_again_have_several_letters_and_come_back_once(
    settings: Settings,
) -> None:
    source = run_place(settings, 4, 9)
    await bury(settings, [dead_letter_of(source, code="INTERNAL_ERROR"), dead_letter_of(source)])
    (letter,) = (await read_dead_letters(settings)).selected(DeadLetterFilter())
    assert (letter.letters, letter.code, letter.place.offset) == (2, "INVALID_JSON", 1)
    assert by_status(await redriven(settings, ALL)) == {"redriven": [str(source)]}


async def test_what_judging_again_cannot_help_is_held_until_it_is_asked_for(
    settings: Settings,
) -> None:
    codes = ["INVALID_JSON", "RUN_CONFLICT", "ARTIFACT_CORRUPT", "TOMBSTONE"]
    places = {code: run_place(settings, number, 1) for number, code in enumerate(codes)}
    await bury(settings, [dead_letter_of(place, code=code) for code, place in places.items()])
    held = sorted(str(places[code]) for code in codes[1:])
    found = by_status(await redriven(settings, ALL))
    assert found["redriven"] == [str(places["INVALID_JSON"])]
    assert sorted(found["held"]) == held
    by_code = DeadLetterFilter(codes=frozenset({"RUN_CONFLICT"}))
    assert by_status(await redriven(settings, by_code)) == {
        "redriven": [str(places["RUN_CONFLICT"])]
    }
    by_name = DeadLetterFilter(sources=frozenset({places["ARTIFACT_CORRUPT"]}))
    assert by_status(await redriven(settings, by_name)) == {
        "redriven": [str(places["ARTIFACT_CORRUPT"])]
    }


async def test_what_is_no_dead_letter_or_not_of_our_topics_is_reported_and_not_sent(
    settings: Settings,
) -> None:
    elsewhere = RecordId(f"{settings.prefix}.runs.events", 0, 1)
    beyond = run_place(settings, 12, 0)
    good = run_place(settings, 1, 0)
    await bury(
        settings,
        [
            Sending(b"k", b"v", [("rmos-source-topic", good.topic.encode())], 0),
            dead_letter_of(elsewhere),
            dead_letter_of(beyond),
            dead_letter_of(good),
        ],
    )
    results = await redriven(settings, ALL)
    found = by_status(results)
    assert found["redriven"] == [str(good)]
    stray = f"{settings.prefix}.runs.dead-letters/0/0"
    assert sorted(found["refused"]) == sorted([stray, str(elsewhere), str(beyond)])
    assert all(result.why for result in results if result.status == "refused")
    unknown = DeadLetterFilter(sources=frozenset({good, run_place(settings, 1, 99)}))
    with pytest.raises(NotFoundError, match=r"runs\.requests/1/99; nothing was redriven"):
        await redriven(settings, unknown)


async def test_a_value_left_at_its_source_is_fetched_and_checked(settings: Settings) -> None:
    large = b"x" * (BROKER_MESSAGE_LIMIT_BYTES + 1)
    topic = settings.topics.run_requests
    await produce(settings, [Sending(b"big", large, (), 5)], compression="gzip")
    other = run_place(settings, 6, 0)
    await produce(settings, [Sending(b"big", b"another", (), 6)])
    gone = run_place(settings, 8, 4)
    await bury(
        settings,
        [
            dead_letter_of(place, large, key=b"big", code="TOO_LARGE")
            for place in (run_place(settings, 5, 0), other, gone)
        ],
    )
    found = by_status(await redriven(settings, ALL))
    assert found == {
        "redriven": [f"{topic}/5/0"],
        "changed": [str(other)],
        "gone": [str(gone)],
    }
    sent = [each for each in await read_topic(settings, topic) if each.partition == 5]
    assert [sha256(each.value) for each in sent] == [sha256(large)] * 2
    assert header_dict(sent[1])["rmos-redrive-of"] == f"{topic}/5/0".encode()


async def test_a_record_that_the_topic_does_not_take_holds_up_no_other(settings: Settings) -> None:
    # Random bytes do not compress, so with our headers it is above the limit of a batch.
    huge = os.urandom(BROKER_MESSAGE_LIMIT_BYTES)
    places = [run_place(settings, 3, offset) for offset in range(4)]
    values = [b"a", huge, b"b", b"c"]
    await bury(settings, map(dead_letter_of, places, values))
    found = by_status(await redriven(settings, ALL))
    assert found["refused"] == [str(places[1])]
    assert sorted(found["redriven"]) == [str(places[number]) for number in (0, 2, 3)]
    records = await read_topic(settings, places[0].topic)
    assert [each.value for each in records] == [b"a", b"b", b"c"]
    assert len(await read_redrives(settings)) == 3


async def test_whoever_redrives_last_shuts_the_others_out(settings: Settings) -> None:
    topic = settings.topics.run_requests
    first = TransactionalSender(settings, transactional_id(settings.prefix))
    second = TransactionalSender(settings, transactional_id(settings.prefix))
    await first.start()
    await second.start()
    with pytest.raises(RefusedError, match="Another command has begun to redrive"):
        await first.send([Message(topic, 0, b"k", b"first")], lambda _: [])
    await second.send([Message(topic, 0, b"k", b"second")], lambda _: [])
    await second.stop()
    assert [each.value for each in await read_topic(settings, topic)] == [b"second"]


async def test_two_redrives_at_once_send_each_record_once(settings: Settings) -> None:
    places = [run_place(settings, number % 12, number) for number in range(1500)]
    await bury(settings, [dead_letter_of(place) for place in places])
    outcomes = await asyncio.gather(
        redriven(settings, ALL), redriven(settings, ALL), return_exceptions=True
    )
    assert all(isinstance(each, list | RefusedError) for each in outcomes), outcomes
    await redriven(settings, ALL)
    records = await read_topic(settings, places[0].topic)
    came_from = [header_dict(each)["rmos-redrive-of"] for each in records]
    assert sorted(came_from) == sorted(str(place).encode() for place in places)


async def test_a_redrive_that_read_the_memory_before_another_sent_does_not_send(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = run_place(settings, 4, 1)
    await bury(settings, [dead_letter_of(source)])
    read = dead_letters.read_redrives

    async def overtaken(settings: Settings) -> dict[RecordId, Redrive]:
        found = await read(settings)
        monkeypatch.setattr(dead_letters, "read_redrives", read)
        assert by_status(await redriven(settings, ALL)) == {"redriven": [str(source)]}
        return found

    monkeypatch.setattr(dead_letters, "read_redrives", overtaken)
    with pytest.raises(RefusedError, match="Another command"):
        await redriven(settings, ALL)
    assert len(await read_topic(settings, source.topic)) == 1


KILLED = """
import asyncio, os, signal, sys
from pipeline.broker.sending import transactions
from pipeline.core.dead_letters.selection import DeadLetterFilter
from pipeline.recovery.redriving import redrive
from pipeline.settings import read_settings

async def die_before_commit(sender, producer, messages, remember):
    await producer.begin_transaction()
    places = await transactions.send_all(producer, messages, transactional=True)
    await transactions.send_all(producer, remember(places), transactional=True)
    os.kill(os.getpid(), signal.SIGKILL)

async def main():
    transactions.TransactionalSender._send = die_before_commit
    async for _ in redrive(read_settings(), DeadLetterFilter()):
        pass

asyncio.run(main())
"""


async def test_a_redrive_killed_between_sending_and_remembering_has_done_nothing(
    settings: Settings,
) -> None:
    source = run_place(settings, 3, 8)
    await bury(settings, [dead_letter_of(source, b"once")])
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED, env=worker_environment(settings), cwd=REPOSITORY
    )
    assert await process.wait() == -signal.SIGKILL
    # The next one ends what was left open, so nobody waits for the broker to give it up.
    assert by_status(await redriven(settings, ALL)) == {"redriven": [str(source)]}
    assert [each.value for each in await read_topic(settings, source.topic)] == [b"once"]
    assert by_status(await redriven(settings, ALL)) == {"redriven before": [str(source)]}


async def test_a_transaction_that_fails_leaves_none_open(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = run_place(settings, 3, 8)
    await bury(settings, [dead_letter_of(source, b"once")])

    def forgets(*_: object) -> list[Message]:
        raise RuntimeError

    sender = TransactionalSender(settings, transactional_id(settings.prefix))
    await sender.start()
    with pytest.raises(RuntimeError):
        await sender.send([Message(source.topic, 3, b"k", b"never")], forgets)
    async with asyncio.timeout(transactions.TRANSACTION_TIMEOUT_MS / 2000):

        async def is_read() -> bool:
            await produce(settings, [Sending(b"k", b"later", (), 3)])
            return [each.value for each in await read_topic(settings, source.topic)][:1] == [
                b"later"
            ]

        await wait_until(is_read, "what comes after the transaction is read")
