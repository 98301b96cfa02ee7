"""Records that only compression lets in: none delays another, and each leaves a trace that fits."""

import os

import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from pipeline.app.persist import persist_worker
from pipeline.broker.connection import admin_client
from pipeline.broker.reading.dead_letters import read_contents, read_dead_letters
from pipeline.core.dead_letters.selection import DeadLetterFilter
from pipeline.core.record import RecordId
from pipeline.errors import UnsendableError
from pipeline.settings import Settings
from tests.builders import run_request, sha256
from tests.e2e.dead_letters import by_status, redriven
from tests.e2e.kafka_reading import (
    Sending,
    header_dict,
    produce,
    read_topic,
    sending,
    wait_until_consumed,
)
from tests.e2e.store_audit import audit_store
from tests.e2e.worker_processes import WorkerPool, only_sentence

pytestmark = pytest.mark.e2e

DOCUMENT = os.urandom(4 * 1024 * 1024).hex().encode()
"""8 MiB that zstd makes half as large, and lz4 does not."""

ZEROS = bytes(8 * 1024 * 1024)
"""8 MiB that any codec makes small."""


async def limit_messages(settings: Settings, topic: str, size_bytes: int) -> None:
    """Let a topic take no more than `size_bytes` at a time."""
    resource = ConfigResource(
        ConfigResourceType.TOPIC, topic, {"max.message.bytes": str(size_bytes)}
    )
    async with admin_client(settings) as admin:
        await admin.alter_configs([resource])


@pytest.mark.slow
async def test_large_keys_and_headers_delay_nothing_and_are_reported_by_their_hash(
    store_settings: Settings,
) -> None:
    settings = store_settings
    large = [
        Sending(b"run_header", b"{", [("small", b"1"), ("document", DOCUMENT)], 3),
        Sending(DOCUMENT, b"{", [("small", b"1")], 3),
        sending(run_request(run_id="run_trace"), [("traceparent", DOCUMENT)], 3),
        Sending(b"run_many", b"{", [("none", None)] * 500_000, 3),
        Sending(None, None, [("document", DOCUMENT)], 3),
    ]
    first = await produce(settings, [sending(run_request(run_id="run_before"), partition=3)])
    places = await produce(settings, large, compression="zstd")
    await produce(settings, [sending(run_request(run_id="run_after"), partition=3)])
    async with persist_worker(settings):
        await wait_until_consumed(settings)

    audit = await audit_store(settings)
    assert audit.outcomes() == {"persisted": 3, "INVALID_JSON": 3, "TOMBSTONE": 1}
    assert audit.event(first[0])["outcome"] == "persisted"
    header, key, trace, many, tombstone = places
    assert "traceparent" not in header_dict(audit.events[trace][0])
    told = header_dict(audit.letter(header))
    assert (audit.letter(header).key, audit.letter(header).value) == (b"run_header", b"{")
    assert told["small"] == b"1"
    assert "document" not in told
    assert told["rmos-headers-count"] == b"2"
    assert told["rmos-source-offset"] == str(header.offset).encode()
    told = header_dict(audit.letter(key))
    assert (audit.letter(key).key, audit.letter(key).value) == (None, b"{")
    assert told["rmos-key-sha256"] == sha256(DOCUMENT).encode()
    assert header_dict(audit.letter(many))["rmos-headers-count"] == b"500000"
    assert header_dict(audit.letter(tombstone))["rmos-headers-count"] == b"1"


@pytest.mark.every_topic
async def test_a_dead_letter_that_its_topic_does_not_take_is_sent_without_the_record(
    store_settings: Settings,
) -> None:
    settings = store_settings
    value = os.urandom(10_000)
    bad = [Sending(b"run_bad", value, [("small", b"1")], 3), Sending(b"k", b"{", (), 3)]
    good = [sending(run_request(run_id=f"run_{number}"), partition=3) for number in range(20)]
    async with persist_worker(settings):
        # A worker does not start over such a topic.
        await limit_messages(settings, settings.topics.run_dead_letters, 2000)
        places = await produce(settings, bad)
        await produce(settings, good)
        await wait_until_consumed(settings)

    audit = await audit_store(settings)
    assert audit.outcomes() == {"persisted": 20, "INVALID_JSON": 2}
    letter = audit.letter(places[0])
    told = header_dict(letter)
    assert (letter.key, letter.value) == (None, None)
    assert "small" not in told
    assert told["rmos-body-sha256"] == sha256(value).encode()
    assert told["rmos-body-size"] == b"10000"
    assert (audit.letter(places[1]).key, audit.letter(places[1]).value) == (b"k", b"{")
    # It comes back whole, from where it was.
    source = RecordId(settings.topics.run_requests, 3, places[0].offset)
    wanted = DeadLetterFilter(sources=frozenset({source}))
    assert by_status(await redriven(settings, wanted)) == {"redriven": [str(source)]}
    again = (await read_topic(settings, source.topic))[-1]
    assert (again.key, again.value, again.headers[0]) == (b"run_bad", value, ("small", b"1"))


async def test_a_worker_whose_events_are_never_taken_ends_with_a_sentence(
    store_settings: Settings, workers: WorkerPool
) -> None:
    settings = store_settings
    worker = workers.start(settings)
    await worker.wait_until_started()
    await limit_messages(settings, settings.topics.run_events, 100)
    await produce(settings, [sending(run_request(run_id="run_1"))])
    assert await worker.ended() == UnsendableError.exit_status
    sentence = only_sentence(worker.text)
    assert settings.topics.run_events in sentence
    assert "max.message.bytes" in sentence


@pytest.mark.every_topic
async def test_what_a_dead_letter_left_is_read_at_its_source_and_comes_back(
    store_settings: Settings,
) -> None:
    settings = store_settings
    headers = [("small", b"1"), ("zeros", ZEROS), ("caf\xe9", None)]
    records = [Sending(b"run_1", b"{", headers, 3), Sending(ZEROS, b"{", (), 3)]
    places = await produce(settings, records, compression="zstd")
    async with persist_worker(settings):
        await wait_until_consumed(settings)
    letters = await read_dead_letters(settings)
    shown = {
        content.letter.source.offset: content
        async for content in read_contents(settings, letters.selected(DeadLetterFilter()))
        if content.letter.source is not None
    }
    assert not any(content.fault for content in shown.values())
    assert shown[places[0].offset].headers[:3] == headers
    assert shown[places[1].offset].key == ZEROS

    assert set(by_status(await redriven(settings, DeadLetterFilter()))) == {"redriven"}
    found = await read_topic(settings, settings.topics.run_requests)
    again = {each.key == ZEROS: each for each in found[2:]}
    assert list(again[False].headers[:3]) == headers
    assert len(again) == 2
