"""`rmos doctor` on a real broker: all fine before a start, else named; nothing is noted."""

from contextlib import closing
from pathlib import Path

import pytest

from pipeline.app.doctor import Answer, examine
from pipeline.app.machine import State
from pipeline.broker.admin.groups import CommittedOffset, commit_offsets, group_members
from pipeline.disk.store_identity import create_store
from pipeline.settings import Settings
from pipeline.storage.index.run_index import open_index_to_read
from tests.builders import run_request
from tests.e2e.kafka_reading import produce, sending

pytestmark = pytest.mark.every_topic


async def asked(settings: Settings) -> dict[str, Answer]:
    return {answer.question: answer async for answer in examine(settings)}


@pytest.fixture
def ready(store_settings: Settings) -> Settings:
    """Give the settings of a store with its key; the address of the API is free."""
    return store_settings.model_copy(update={"api_port": 0})


async def test_all_is_fine_before_the_first_start_and_nothing_is_made(ready: Settings) -> None:
    await produce(ready, [sending(run_request(run_id="run_0"))])
    before = sorted(ready.data_dir.rglob("*"))
    found = await asked(ready)
    expected = dict.fromkeys(found, State.FINE) | {
        "java": State.NOT_ASKED,  # the broker of the test is at a port of its own
        "metrics": State.NOT_ASKED,
        "traces": State.NOT_ASKED,
    }
    assert {name: each.state for name, each in found.items()} == expected, found
    assert "1 offsets before the end" in found["persist"].sentence
    assert sorted(ready.data_dir.rglob("*")) == before
    # It joined no group, and noted no topic.
    assert await group_members(ready, ready.topics.persist_group) == []
    with closing(open_index_to_read(ready.data_dir)) as index:
        assert index.topic_ids(1) == {}


async def test_a_group_beyond_the_store_is_what_a_start_would_refuse(ready: Settings) -> None:
    topic, group = ready.topics.run_requests, ready.topics.persist_group
    (written,) = await produce(ready, [sending(run_request(run_id="run_0"))])
    place = (topic, written.partition)
    await commit_offsets(ready, group, {place: CommittedOffset(written.offset + 1, "")})
    found = await asked(ready)
    assert {name for name, each in found.items() if each.state is State.NOT_USABLE} == {"persist"}
    assert f"The group has committed offset 1 of {topic}" in found["persist"].sentence


async def test_the_store_of_another_cluster_is_not_usable(ready: Settings, tmp_path: Path) -> None:
    create_store(tmp_path / "other", cluster_id="another", prefix=ready.prefix)
    found = await asked(ready.model_copy(update={"data_dir": tmp_path / "other"}))
    assert "belongs to the Kafka cluster another" in found["broker"].sentence
    assert "run rmos ledger init" in found["key"].sentence
    assert found["persist"].state is State.NOT_ASKED
