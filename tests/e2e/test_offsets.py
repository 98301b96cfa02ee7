"""Groups are moved and moved back on the real broker, and never under a worker's feet."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaConsumer

from pipeline.app.persist import persist_worker
from pipeline.broker.admin.groups import (
    CommittedOffset,
    commit_offsets,
    committed_offsets,
    group_positions,
)
from pipeline.errors import NotFoundError, RefusedError
from pipeline.recovery.group_moves import (
    kept_positions,
    move_group,
    moves_back,
    moves_within_log,
    read_kept,
)
from pipeline.settings import Settings
from tests.builders import run_request
from tests.e2e.commands import rmos, rmos_process
from tests.e2e.kafka_reading import (
    commit,
    committed,
    produce,
    sending,
    wait_until,
    wait_until_consumed,
)
from tests.e2e.store_audit import audit_store

pytestmark = pytest.mark.e2e


async def produce_runs(settings: Settings, partition: int, count: int) -> None:
    await produce(
        settings,
        [
            sending(run_request(run_id=f"run_{partition}_{number}"), partition=partition)
            for number in range(count)
        ],
    )


@asynccontextmanager
async def member_of(settings: Settings, group: str, topic: str) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=settings.bootstrap_servers,
        group_id=group,
        client_id="somebody",
        enable_auto_commit=False,
    )
    await consumer.start()
    try:
        await wait_until(lambda: bool(consumer.assignment()), "the member has partitions")
        yield consumer
    finally:
        await consumer.stop()


async def test_a_reset_and_its_undo_leave_the_group_where_it_was(settings: Settings) -> None:
    group = settings.topics.persist_group
    await produce_runs(settings, 3, 8)
    await produce_runs(settings, 5, 6)
    before = {3: 7, 5: 2}
    await commit(settings, before)

    done = await rmos(settings, "offsets", "reset", "persist", "--to-offset", "3:4", "--yes")
    assert done.status == 0, done.err
    assert done.out.splitlines()[1:] == [f"{settings.topics.run_requests}\t3\t7\t4\t-3\t"]
    assert "3 offsets are consumed again" in done.err
    assert await committed(settings) == {3: 4, 5: 2}

    # Partitions where the group had never been are as they were, too.
    done = await rmos(settings, "offsets", "reset", group, "--latest", "--yes", "--json")
    assert done.status == 0, done.err
    assert "offsets are skipped" in done.err
    assert "--accept-loss" in done.err
    assert await committed(settings) == {3: 8, 5: 6} | dict.fromkeys(set(range(12)) - {3, 5}, 0)
    (document,) = done.documents
    assert document["kept"] in await kept_positions(settings, group)

    assert (await rmos(settings, "offsets", "undo", "persist", "--yes")).status == 0
    assert await committed(settings) == {3: 4, 5: 2}
    # An undo can be undone, and each earlier place is kept under its name.
    assert (await rmos(settings, "offsets", "undo", "persist", "--yes")).status == 0
    assert (await committed(settings))[5] == 6
    first, *_ = await kept_positions(settings, group)
    done = await rmos(settings, "offsets", "undo", "persist", "--snapshot", first, "--yes")
    assert done.status == 0, done.err
    assert await committed(settings) == before
    assert await committed_offsets(settings, group, [settings.topics.run_requests]) == {
        (settings.topics.run_requests, partition): offset for partition, offset in before.items()
    }


async def test_a_reset_of_a_live_group_is_refused_and_its_members_are_named(
    settings: Settings,
) -> None:
    group = settings.topics.persist_group
    await produce_runs(settings, 3, 4)
    await commit(settings, {3: 4})
    async with member_of(settings, group, settings.topics.run_requests):
        for command in (["reset", "persist", "--earliest"], ["undo", "persist"]):
            done = await rmos_process(settings, "offsets", *command, "--yes")
            assert done.status == 4
            assert done.out == ""
            assert (
                f"Stop the workers of {group} first, 1 of them run (somebody at 127.0.0.1"
                in done.err
            )
            assert "nothing was changed" in done.err
        # The broker itself refuses, so a worker that joins at the last moment is safe.
        place = settings.topics.run_requests, 3
        with pytest.raises(RefusedError, match="got a member meanwhile"):
            await commit_offsets(settings, group, {place: CommittedOffset(0, "")})
        shown = await rmos(settings, "offsets", "show", "persist", "--json")
        (found,) = shown.documents[0]["groups"]
        assert found["state"] == "Stable"
        assert [member["client_id"] for member in found["members"]] == ["somebody"]
    assert await committed(settings) == {3: 4}
    assert await kept_positions(settings, group) == []


async def test_nobody_who_cannot_answer_moves_a_group_without_saying_yes(
    settings: Settings,
) -> None:
    await produce_runs(settings, 3, 4)
    await commit(settings, {3: 4})
    done = await rmos(settings, "offsets", "reset", "persist", "--earliest")
    assert done.status == 2
    assert "then give --yes. Nothing was moved." in done.err
    done = await rmos(settings, "offsets", "reset", "persist", "--earliest", "--dry-run", "--json")
    assert done.status == 0
    (move,) = [move for move in done.documents[0]["moves"] if move["partition"] == 3]
    assert (move["from"], move["to"], move["difference"]) == (4, 0, -4)
    assert await committed(settings) == {3: 4}


async def test_a_move_stays_within_the_log_and_follows_the_times_of_the_broker(
    settings: Settings,
) -> None:
    group = settings.topics.persist_group
    await produce_runs(settings, 3, 4)
    await commit(settings, {3: 2})
    positions = await group_positions(settings, group)
    (move,) = [
        move
        for move in moves_within_log(positions, lambda each: each.following + 99)
        if move.position.partition == 3
    ]
    assert (move.wanted, move.to, move.is_clamped) == (101, 4, True)
    document = (await rmos(settings, "offsets", "show", "persist", "--json")).documents[0]
    (shown,) = [each for each in document["groups"][0]["partitions"] if each["partition"] == 3]
    assert (shown["committed"], shown["end"], shown["lag"]) == (2, 4, 2)
    for moment, expected in (("2000-01-01T00:00:00Z", 0), ("2099-01-01T00:00:00Z", 4)):
        done = await rmos(settings, "offsets", "reset", "persist", "--to-time", moment, "--yes")
        assert done.status == 0, done.err
        assert (await committed(settings))[3] == expected


async def test_there_is_nothing_to_undo_where_nothing_was_moved(settings: Settings) -> None:
    with pytest.raises(NotFoundError, match="There is no snapshot"):
        await read_kept(settings, settings.topics.persist_group, None)


async def test_what_is_consumed_again_changes_nothing_and_a_skip_is_refused(
    store_settings: Settings,
) -> None:
    settings = store_settings
    group = settings.topics.persist_group
    await produce_runs(settings, 3, 6)

    async def consume() -> None:
        async with persist_worker(settings):
            await wait_until_consumed(settings)

    await consume()
    files = {each: each.stat().st_mtime_ns for each in settings.data_dir.glob("runs/*/*.json")}
    positions = await group_positions(settings, group)
    await move_group(settings, group, moves_within_log(positions, lambda each: each.begin))
    await consume()
    assert {each: each.stat().st_mtime_ns for each in files} == files
    (await audit_store(settings))

    await produce_runs(settings, 4, 2)
    positions = await group_positions(settings, group)
    await move_group(settings, group, moves_within_log(positions, lambda each: each.end))
    with pytest.raises(Exception, match="--accept-loss"):
        async with persist_worker(settings):
            pytest.fail("the worker started")
    _, saved = await read_kept(settings, group, None)
    await move_group(settings, group, moves_back(await group_positions(settings, group), saved))
    await consume()
    assert {"run_4_0", "run_4_1"} <= (await audit_store(settings)).rows.keys()


@pytest.mark.every_topic
async def test_a_group_has_a_line_and_so_has_each_partition_that_is_behind(
    settings: Settings,
) -> None:
    topic, group = settings.topics.run_requests, settings.topics.persist_group
    await produce_runs(settings, 3, 4)
    await produce_runs(settings, 5, 2)
    await commit(settings, {3: 1, 5: 2})
    shown = await rmos(settings, "offsets", "show", "persist")
    assert shown.out.splitlines()[1:] == [
        f"{group}\t{topic}\tall 12\t\t\t3\t",
        f"{group}\t{topic}\t3\t1\t4\t3\t",
    ]
    whole = await rmos(settings, "offsets", "show", "persist", "--partitions")
    assert len(whole.out.splitlines()) == 1 + 1 + 12
    everything = await rmos(settings, "offsets", "show")
    assert everything.out == shown.out


@pytest.mark.every_topic
async def test_all_groups_are_shown(settings: Settings) -> None:
    document = (await rmos(settings, "offsets", "show", "--json")).documents[0]
    names = [each["group"].removeprefix(f"{settings.prefix}.") for each in document["groups"]]
    assert names == ["persist", "advise", "audit", "migrate", "persist-v1"]
    assert {each["state"] for each in document["groups"]} == {"Dead"}
