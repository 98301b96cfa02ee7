"""The pages that ask the broker, over a real one: its flow, its events, its dead letters."""

import asyncio
from pathlib import Path

import pytest

from pipeline.broker.local.broker import LocalBroker
from pipeline.broker.reading.dead_letters import read_newest_dead_letters, read_one_dead_letter
from pipeline.broker.reading.looks import look_at_flow
from pipeline.core.dead_letters.selection import DeadLetterFilter
from pipeline.core.record import RecordId
from pipeline.settings import Settings
from tests.builders import red_request, run_request
from tests.e2e.api_service import api_service
from tests.e2e.dead_letters import bury, dead_letter_of
from tests.e2e.kafka_reading import produce, sending, wait_until
from tests.page.conftest import HTML, read_html

pytestmark = [pytest.mark.e2e, pytest.mark.every_topic]

ANY = DeadLetterFilter()


async def test_what_came_is_told_and_shown(broker: LocalBroker, tmp_path: Path) -> None:
    async with api_service(broker, tmp_path / "store", needed=None) as service:
        # The first look lets the events be read.
        await service.http.get("/flow", headers=HTML)
        assert (await service.post(run_request(run_id="run_good"))).status_code == 201
        assert (await service.post(red_request(run_id="run_red"))).status_code == 409
        conflicting = run_request(run_id="run_good", notes="another")
        assert (await service.post(conflicting)).status_code == 409

        words = ""

        async def is_shown() -> bool:
            nonlocal words
            text = (await service.http.get("/flow", headers=HTML)).text
            words = " ".join(read_html(text).one("main").text.split())
            wanted = ("run_good", "run_red", "conflict", "12 of 12 partitions")
            return all(each in words for each in wanted)

        await wait_until(is_shown, "the events and the workers are on the page")
        assert "persisted BLOCKED RED" in words
        assert "persisted OK GREEN" in words
        letters = read_html((await service.http.get("/dead-letters", headers=HTML)).text)
        links = [str(each.attributes["href"]) for each in letters.one("main").all("a")]
        (link,) = [each for each in links if ".runs.dead-letters/" in each]
        page = read_html((await service.http.get(link, headers=HTML)).text)
        assert "RUN_CONFLICT" in page.one("h1").text
        assert "Withheld" in page.one("main").text


async def test_a_look_goes_back_from_the_end_and_says_how_far(settings: Settings) -> None:
    topic = f"{settings.prefix}.runs.requests"
    await bury(settings, [dead_letter_of(RecordId(topic, 0, number)) for number in range(250)])
    await bury(settings, [dead_letter_of(RecordId(topic, 1, 7))])
    found = await read_newest_dead_letters(settings, 60.0)
    read = {letter.identity.offset for letter in found.letters.selected(ANY)}
    assert read == {7, *range(50, 250)}
    assert (found.there, found.looked_at) == (251, 201)


async def test_no_time_is_nothing_read_and_no_fault(settings: Settings) -> None:
    await bury(settings, [dead_letter_of(RecordId(f"{settings.prefix}.runs.requests", 0, 1))])
    found = await read_newest_dead_letters(settings, 0.0)
    assert (found.there, found.looked_at) == (1, 0)


async def test_one_letter_is_found_by_its_place(settings: Settings) -> None:
    source = RecordId(f"{settings.prefix}.runs.requests", 0, 1)
    await bury(settings, [dead_letter_of(source, b"\x00\xff")])
    letters = f"{settings.prefix}.runs.dead-letters"
    found = await read_one_dead_letter(settings, RecordId(letters, 0, 0))
    assert found is not None
    assert (found.letter.source, found.value) == (source, b"\x00\xff")
    for nowhere in (RecordId(letters, 0, 1), RecordId(letters, 99, 0)):
        assert await read_one_dead_letter(settings, nowhere) is None


async def test_a_record_without_a_worker_waits_and_has_an_age(settings: Settings) -> None:
    await produce(settings, [sending(run_request(run_id="run_1"), partition=4)])
    persist, *_ = (await look_at_flow(settings)).groups
    assert (persist.lag, persist.came, persist.told, persist.members) == (1, 1, 0, ())
    assert persist.oldest_ms is not None
    again, *_ = await asyncio.gather(*(look_at_flow(settings) for _ in range(3)))
    assert again.groups[0].oldest_ms == persist.oldest_ms
