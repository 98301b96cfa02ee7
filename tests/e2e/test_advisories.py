"""Advisories on the real broker: every outcome, and a link wherever its run is, in any order."""

import asyncio
import os
import time
from collections import Counter
from pathlib import Path

import pytest

from pipeline.app import advise_worker, persist_worker
from pipeline.broker.local.broker import LocalBroker
from pipeline.consumers.advisories import claims as advisory_claims
from tests.builders import ABSENT, advisory_request, record, sha256
from tests.e2e.advisories import (
    NEVER,
    advisory_of,
    committed_retries,
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


@pytest.fixture(autouse=True)
def _quick_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the claims be looked at at the start alone, unless a test says otherwise."""
    monkeypatch.setattr(advisory_claims, "SCAN_SECONDS", NEVER)


async def test_each_outcome_is_told_and_every_record_leaves_a_trace(
    broker: LocalBroker, tmp_path: Path
) -> None:
    async with store_of(broker, tmp_path / "s", (NEVER,) * 4) as settings:
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
        (retry,) = await read_topic(settings, settings.topics.advisory_retries[0])
        asked = sent["waiting"]
        assert (retry.key, retry.value) == (asked.key, asked.value)
        assert tuple(retry.headers[: len(AWKWARD_HEADERS)]) == AWKWARD_HEADERS
        place = places[list(sent).index("waiting")]
        assert header_dict(retry)["rmos-source-offset"] == str(place.offset).encode()
        told = await read_topic(settings, settings.topics.advisory_events)
        traced = [each for each in told if TRACEPARENT in each.headers]
        assert len(traced) == 3
        assert {header_dict(each)["ce_source"] for each in told} == {b"/rmos/advise"}


async def test_the_same_advisory_from_many_publishers_is_one_link(
    broker: LocalBroker, tmp_path: Path
) -> None:
    async with store_of(broker, tmp_path / "s", (NEVER,) * 4) as settings:
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


async def test_an_advisory_published_before_its_run_is_linked(
    broker: LocalBroker, tmp_path: Path
) -> None:
    async with store_of(broker, tmp_path / "s", (0.5, 4.0, NEVER, NEVER)) as settings:
        async with persist_worker(settings), advise_worker(settings):
            (place,) = await publish(settings, advisory_of("run_1"))
            published = time.monotonic()
            await wait_for(settings, place, "waiting")
            await wait_until(lambda: time.monotonic() > published + 3, "three seconds")
            await produce(settings, [run_of("run_1")])
            await wait_for(settings, place, "linked")
        assert await words(settings, place) == ["waiting", "linked"]
        assert list(links(settings)) == ["run_1_advisory_adv_1.json"]
        assert len(await read_topic(settings, settings.topics.advisory_retries[1])) == 1
        assert await committed_retries(settings) == {0: 1, 1: 1}


async def test_a_run_that_never_comes_is_told_and_is_linked_when_it_does(
    broker: LocalBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(advisory_claims, "SCAN_SECONDS", 0.2)
    async with store_of(broker, tmp_path / "s", (0.1, 0.1, 0.1, 0.1)) as settings:
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
        assert await committed_retries(settings) == {0: 1, 1: 1, 2: 1, 3: 1}


async def test_an_advisory_with_headers_that_no_topic_takes_is_told_and_linked_like_any_other(
    broker: LocalBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(advisory_claims, "SCAN_SECONDS", 0.2)
    # 8 MiB that zstd makes half as large, and lz4 does not.
    document = ("document", os.urandom(4 * 1024 * 1024).hex().encode())
    async with store_of(broker, tmp_path / "s", (0.1, 0.1, 0.1, 0.1)) as settings:
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
    async with store_of(broker, tmp_path / "s", (NEVER,) * 4) as settings:
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


async def test_a_long_wait_never_holds_up_a_short_one(broker: LocalBroker, tmp_path: Path) -> None:
    async with store_of(broker, tmp_path / "s", (1.0, NEVER, NEVER, NEVER)) as settings:
        long, short = "run_long", "run_short"
        async with persist_worker(settings), advise_worker(settings):
            many = [advisory_of(long, advisory_id=f"adv_{n}") for n in range(200)]
            await publish(settings, *many)

            async def all_wait_long() -> bool:
                topic = settings.topics.advisory_retries[1]
                return len(await read_topic(settings, topic)) >= len(many)

            await wait_until(all_wait_long, "all of them in the second retry topic")
            (place,) = await publish(settings, advisory_of(short))
            await wait_for(settings, place, "waiting")
            began = time.monotonic()
            await produce(settings, [run_of(short)])
            await wait_for(settings, place, "linked")
            assert time.monotonic() - began < 5


async def test_what_is_no_retry_of_ours_is_a_dead_letter(
    broker: LocalBroker, tmp_path: Path
) -> None:
    async with store_of(broker, tmp_path / "s", (0.0, NEVER, NEVER, NEVER)) as settings:
        topic = settings.topics.advisory_retries[0]
        sent = [
            Sending(*record(advisory_request()), AWKWARD_HEADERS, partition=0),
            Sending(b"k", None, (("rmos-source-offset", None),), partition=0),
        ]
        async with advise_worker(settings):
            await produce(settings, sent, topic=topic)

            async def are_told() -> bool:
                letters = await read_topic(settings, settings.topics.advisory_dead_letters)
                return len(letters) == 2

            await wait_until(are_told, "two dead letters")
        letters = await read_topic(settings, settings.topics.advisory_dead_letters)
        assert {dead_letter_headers(each).source_topic for each in letters} == {topic}
        assert {(each.key, each.value) for each in letters} == {(s.key, s.value) for s in sent}
        assert links(settings) == {}


async def test_a_request_without_room_for_retries_goes_without_its_headers_and_is_linked(
    broker: LocalBroker, tmp_path: Path
) -> None:
    async with store_of(broker, tmp_path / "s", (NEVER,) * 4) as settings:
        key, value = record(advisory_request(run_id="run_1"))
        large = Sending(key, value.ljust(4_194_304), (("filler", b"x" * 1_045_000),))
        async with advise_worker(settings):
            (place,) = await publish(settings, large)
            await wait_for(settings, place, "waiting")
        (retry,) = await read_topic(settings, settings.topics.advisory_retries[0])
        assert retry.value == large.value
        assert "filler" not in header_dict(retry)
        async with persist_worker(settings):
            await produce(settings, [run_of("run_1")])
            await wait_until_persisted(settings, 1)
        async with advise_worker(settings):
            await wait_for(settings, place, "linked")


async def test_two_workers_share_the_work_and_link_each_once(
    broker: LocalBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A claim may pass its last retry before its run comes, and then the scan links it.
    monkeypatch.setattr(advisory_claims, "SCAN_SECONDS", 0.5)
    async with store_of(broker, tmp_path / "s", (0.2, 0.2, 0.2, NEVER)) as settings:
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
    async with store_of(broker, tmp_path / "s", (NEVER,) * 4) as settings:
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
