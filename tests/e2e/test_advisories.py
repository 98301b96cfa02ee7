"""Advisories on the real broker: every outcome, and a link wherever its run is, in any order."""

import asyncio
import os
import sqlite3
import time
from collections import Counter
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import NewTopic, RecordsToDelete

from pipeline.app.advise import advise_worker
from pipeline.app.persist import persist_worker
from pipeline.broker.admin.topics import apply_topics, partition_offsets
from pipeline.broker.connection import admin_client
from pipeline.broker.local.broker import LocalBroker
from pipeline.topics import former_topics
from tests.builders import ABSENT, advisory_request, record, sha256
from tests.e2e.advisories import (
    NEVER,
    advisory_of,
    dead_letter_headers,
    links,
    outcomes,
    publish,
    run_of,
    store_of,
    wait_for,
    wait_until_all_told,
    wait_until_persisted,
    words,
)
from tests.e2e.commands import rmos
from tests.e2e.kafka_reading import (
    Sending,
    header_dict,
    produce,
    read_topic,
    wait_until,
)

pytestmark = pytest.mark.e2e

TRACEPARENT = ("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
AWKWARD_HEADERS = (("latin", b"caf\xe9"), ("nothing", None), TRACEPARENT)


async def test_each_outcome_is_reported_and_every_record_leaves_a_trace(
    broker: LocalBroker, tmp_path: Path
) -> None:
    async with store_of(broker, tmp_path / "s", NEVER) as settings:
        sent = {
            "linked": Sending(*record(advisory_request(run_id="run_1")), AWKWARD_HEADERS),
            "duplicate": advisory_of("run_1", title="another"),
            "ADVISORY_CONFLICT": Sending(
                *record(advisory_request(run_id="run_1", kind="note")), AWKWARD_HEADERS
            ),
            "waiting": Sending(*record(advisory_request(run_id="run_9")), AWKWARD_HEADERS),
            "TOMBSTONE": Sending(b"run_1", None),
            "INVALID_JSON": Sending(b"run_1", b"{"),
            "INVALID_IDENTITY": Sending(b"../x", b'{"run_id": "../x"}'),
            "KEY_MISMATCH": Sending(b"other", record(advisory_request())[1]),
            "UNSUPPORTED_VERSION": advisory_of("run_1", schema_version="rmos.run_request/1"),
            "INVALID_ADVISORY": advisory_of("run_1", advisory_id="../up"),
        }
        async with persist_worker(settings), advise_worker(settings):
            await produce(settings, [run_of("run_1")])
            await wait_until_persisted(settings, 1)
            places = await publish(settings, *sent.values())
            await wait_until_all_told(settings, places)
        for word, place in zip(sent, places, strict=True):
            assert await words(settings, place) == [word]
        assert list(links(settings)) == ["run_1_advisory_adv_1.json"]
        letters = await read_topic(settings, settings.topics.advisory_dead_letters)
        codes = {dead_letter_headers(each).error_code: each for each in letters}
        assert codes.keys() == sent.keys() - {"linked", "duplicate", "waiting"}
        conflict = codes["ADVISORY_CONFLICT"]
        asked = sent["ADVISORY_CONFLICT"]
        assert (conflict.key, conflict.value) == (asked.key, asked.value)
        assert tuple(conflict.headers[: len(AWKWARD_HEADERS)]) == AWKWARD_HEADERS
        told = await read_topic(settings, settings.topics.advisory_events)
        traced = [each for each in told if TRACEPARENT in each.headers]
        assert len(traced) == 3
        assert {header_dict(each)["ce_source"] for each in told} == {b"/rmos/advise"}


async def test_the_same_advisory_from_many_publishers_is_one_link(
    broker: LocalBroker, tmp_path: Path
) -> None:
    async with store_of(broker, tmp_path / "s", NEVER) as settings:
        async with persist_worker(settings), advise_worker(settings):
            await produce(settings, [run_of("run_1")])
            await wait_until_persisted(settings, 1)
            artifact = settings.data_dir / "runs/2025-12-18/run_1.json"
            before = artifact.read_bytes(), artifact.stat()
            batches = await asyncio.gather(
                *(
                    publish(settings, *[advisory_of("run_1")] * (13 if number < 4 else 12))
                    for number in range(8)
                )
            )
            places = [place for batch in batches for place in batch]
            assert len(places) == 100
            await wait_until_all_told(settings, places)
        told = await outcomes(settings)
        assert Counter(events[0].outcome for events in told.values()) == {
            "linked": 1,
            "duplicate": 99,
        }
        assert len(links(settings)) == 1
        assert (artifact.read_bytes(), artifact.stat()) == before
        content = advisory_request()["content_text"]
        blobs = [p for p in (settings.data_dir / "attachments").rglob("*") if p.is_file()]
        assert [blob.name for blob in blobs] == [sha256(content)]


async def test_an_advisory_published_before_its_run_is_linked_within_seconds(
    broker: LocalBroker, tmp_path: Path
) -> None:
    async with store_of(broker, tmp_path / "s", NEVER) as settings:
        async with persist_worker(settings), advise_worker(settings):
            (place,) = await publish(settings, advisory_of("run_1"))
            await wait_for(settings, place, "waiting")
            await produce(settings, [run_of("run_1")])
            await wait_until_persisted(settings, 1)
            began = time.monotonic()
            await wait_for(settings, place, "linked")
            assert time.monotonic() - began < 60
        assert await words(settings, place) == ["waiting", "linked"]
        assert list(links(settings)) == ["run_1_advisory_adv_1.json"]


async def test_a_run_that_never_comes_is_reported_and_is_linked_when_it_does(
    broker: LocalBroker, tmp_path: Path
) -> None:
    async with store_of(broker, tmp_path / "s", 0.5) as settings:
        sent = Sending(*record(advisory_request(run_id="run_1")), AWKWARD_HEADERS)
        async with persist_worker(settings), advise_worker(settings):
            (place,) = await publish(settings, sent)
            await wait_for(settings, place, "RUN_NOT_FOUND")
            (letter,) = await read_topic(settings, settings.topics.advisory_dead_letters)
            assert (letter.key, letter.value) == (sent.key, sent.value)
            assert tuple(letter.headers[: len(AWKWARD_HEADERS)]) == AWKWARD_HEADERS
            headers = dead_letter_headers(letter)
            assert headers.source_topic == settings.topics.advisory_requests
            assert (headers.source_partition, headers.source_offset) == (
                str(place.partition),
                str(place.offset),
            )
            assert links(settings) == {}
            await produce(settings, [run_of("run_1")])
            await wait_for(settings, place, "linked")
        assert await words(settings, place) == ["waiting", "RUN_NOT_FOUND", "linked"]
        assert list(links(settings)) == ["run_1_advisory_adv_1.json"]
        letters = await read_topic(settings, settings.topics.advisory_dead_letters)
        assert len(letters) == 1


async def test_a_request_that_retention_removed_is_linked_from_its_dead_letter(
    broker: LocalBroker, tmp_path: Path
) -> None:
    async with store_of(broker, tmp_path / "s", 0.5) as settings:
        requests = Sending(*record(advisory_request(run_id="run_1")), AWKWARD_HEADERS, 4)
        other = Sending(*record(advisory_request(run_id="run_2")), partition=4)
        async with persist_worker(settings), advise_worker(settings):
            places = await publish(settings, requests, other)
            for place in places:
                await wait_for(settings, place, "RUN_NOT_FOUND")
            removed = TopicPartition(settings.topics.advisory_requests, 4)
            async with admin_client(settings) as admin:
                await admin.delete_records({removed: RecordsToDelete(before_offset=2)})
            await produce(settings, [run_of("run_1"), run_of("run_2")])
            for place in places:
                await wait_for(settings, place, "linked")
        assert await words(settings, places[0]) == ["waiting", "RUN_NOT_FOUND", "linked"]
        assert list(links(settings)) == [f"run_{n}_advisory_adv_1.json" for n in (1, 2)]
        told = await read_topic(settings, settings.topics.advisory_events)
        assert sum(TRACEPARENT in each.headers for each in told) == 3


async def test_an_advisory_with_headers_that_no_topic_takes_is_reported_and_linked_like_any_other(
    broker: LocalBroker, tmp_path: Path
) -> None:
    # 8 MiB that zstd makes half as large, and lz4 does not.
    document = ("document", os.urandom(4 * 1024 * 1024).hex().encode())
    async with store_of(broker, tmp_path / "s", 0.4) as settings:
        large = Sending(*record(advisory_request(run_id="run_1")), [("small", b"1"), document], 3)
        small = Sending(*record(advisory_request(run_id="run_2")), [("small", b"1")], 3)
        async with persist_worker(settings), advise_worker(settings):
            places = await produce(
                settings,
                [large, small],
                topic=settings.topics.advisory_requests,
                compression="zstd",
            )
            for place in places:
                await wait_for(settings, place, "RUN_NOT_FOUND")
            letters = await read_topic(settings, settings.topics.advisory_dead_letters)
            told = {letter.key: header_dict(letter) for letter in letters}
            assert len(letters) == 2
            assert told[b"run_1"]["small"] == told[b"run_2"]["small"] == b"1"
            assert told[b"run_1"]["rmos-headers-count"] == b"2"
            assert "document" not in told[b"run_1"]
            await produce(settings, [run_of("run_1")])
            await wait_for(settings, places[0], "linked")
        assert await words(settings, places[0]) == ["waiting", "RUN_NOT_FOUND", "linked"]


async def test_claims_whose_runs_came_while_no_worker_ran_are_linked_at_the_start(
    broker: LocalBroker, tmp_path: Path
) -> None:
    async with store_of(broker, tmp_path / "s", NEVER) as settings:
        names = [f"run_{number}" for number in range(1200)]
        async with advise_worker(settings):
            places = await publish(settings, *map(advisory_of, names))
            await wait_until_all_told(settings, places)
        async with persist_worker(settings):
            await produce(settings, map(run_of, names[::2]))
            await wait_until_persisted(settings, 600)
        async with advise_worker(settings):
            await wait_until(lambda: len(links(settings)) == 600, "600 links")
        assert links(settings).keys() == {f"{name}_advisory_adv_1.json" for name in names[::2]}


async def test_an_upgrade_with_letters_in_the_former_retry_topics_loses_nothing(
    broker: LocalBroker, tmp_path: Path
) -> None:
    """An older worker left them there: their claims are rows, so what they ask for is done."""
    async with store_of(broker, tmp_path / "s", NEVER) as settings:
        names = ["run_1", "run_2"]
        async with advise_worker(settings):
            places = await publish(settings, *map(advisory_of, names))
            await wait_until_all_told(settings, places)
        former = former_topics(settings.prefix)
        async with admin_client(settings) as admin:
            await admin.create_topics([NewTopic(name, 6, 1) for name in former])
        letters = [Sending(*record(advisory_request(run_id=name)), partition=1) for name in names]
        for topic in former[:2]:
            await produce(settings, letters, topic=topic)
        with sqlite3.connect(settings.data_dir / "index.sqlite3") as index:
            # As the older version left it.
            index.executescript("DROP TABLE reported_claims; DROP TABLE claims_in_hand;")
        assert await apply_topics(settings) == []
        short = settings.model_copy(update={"advisory_wait_seconds": 0.5})
        async with persist_worker(short), advise_worker(short):
            for place in places:
                await wait_for(settings, place, "RUN_NOT_FOUND")
            await produce(settings, map(run_of, names))
            for place in places:
                await wait_for(settings, place, "linked")
        assert len(links(settings)) == 2
        kept = await partition_offsets(settings, former[:2])
        assert sum(each.end for each in kept.values()) == 2 * len(letters)
        shown = await rmos(settings, "topics", "check")
        assert shown.status == 0
        for name in former:
            assert f"{name} is no longer used" in shown.err


async def test_the_largest_request_is_linked_when_its_run_comes(
    broker: LocalBroker, tmp_path: Path
) -> None:
    async with store_of(broker, tmp_path / "s", NEVER) as settings:
        key, value = record(advisory_request(run_id="run_1"))
        large = Sending(key, value.ljust(4_194_304), (("filler", b"x" * 1_045_000),))
        async with advise_worker(settings):
            (place,) = await publish(settings, large)
            await wait_for(settings, place, "waiting")
        async with persist_worker(settings):
            await produce(settings, [run_of("run_1")])
            await wait_until_persisted(settings, 1)
        async with advise_worker(settings):
            await wait_for(settings, place, "linked")


async def test_two_workers_share_the_work_and_link_each_once(
    broker: LocalBroker, tmp_path: Path
) -> None:
    async with store_of(broker, tmp_path / "s", NEVER) as settings:
        names = [f"run_{number}" for number in range(300)]
        async with persist_worker(settings), advise_worker(settings):
            early = await publish(settings, *map(advisory_of, names[:150]))
            async with advise_worker(settings):
                await produce(settings, map(run_of, names))
                late = await publish(settings, *map(advisory_of, names[150:]))
                await wait_until(lambda: len(links(settings)) == 300, "300 links")

                async def all_linked() -> bool:
                    told = await outcomes(settings)
                    return all(
                        any(event.outcome == "linked" for event in told.get(place, []))
                        for place in [*early, *late]
                    )

                await wait_until(all_linked, "300 events")
        told = await outcomes(settings)
        assert {event.outcome for events in told.values() for event in events} == {
            "waiting",
            "linked",
        }


async def test_content_by_hash_and_as_json_are_linked(broker: LocalBroker, tmp_path: Path) -> None:
    async with store_of(broker, tmp_path / "s", NEVER) as settings:
        async with persist_worker(settings), advise_worker(settings):
            await produce(settings, [run_of("run_1")])
            await wait_until_persisted(settings, 1)
            places = await publish(
                settings,
                advisory_of("run_1", content_text=ABSENT, content_json={"a": [1, 2]}),
                advisory_of(
                    "run_1", advisory_id="adv_2", content_text=ABSENT, content_sha256="a" * 64
                ),
                advisory_of("run_1", advisory_id="adv_3", content_text=ABSENT, kind="note"),
            )
            await wait_until_all_told(settings, places)
        found = links(settings)
        assert [link.get("mime") for link in found.values()] == ["application/json", None, None]
        assert len(found) == 3
