"""A store is proved and restored by its topics: the same bytes, nothing else, nobody is told."""

import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from pipeline.app.persist import persist_worker
from pipeline.broker.admin.groups import committed_offsets
from pipeline.broker.admin.topics import partition_offsets
from pipeline.broker.local.broker import LocalBroker
from pipeline.core.hashing import sha256_of_json
from pipeline.settings import Settings
from pipeline.storage.index.run_index import INDEX_FILE
from pipeline.topics import consumer_groups, topic_table
from tests.builders import incomplete_request, judged, run_request, sha256
from tests.e2e.commands import rmos
from tests.e2e.kafka_reading import Place, partitions_of, read_topic, wait_until
from tests.e2e.replayed_store import Made, digest_of, made_store, run_requests, tree_of
from tests.e2e.worker_processes import RMOS, WorkerPool
from tests.ledger.ledgers import damage
from tests.storage.stores import change_index, rows

pytestmark = pytest.mark.e2e

DATE = "runs/2025-12-18"
BLOB = f"attachments/{sha256(b'blob 2')[:2]}/{sha256(b'blob 2')[2:4]}/{sha256(b'blob 2')}"
LINK = f"{DATE}/run_3_advisory_adv_1.json"


@pytest.fixture(scope="module")
async def made(
    broker: LocalBroker, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Made]:
    async with made_store(broker, tmp_path_factory.mktemp("replayed") / "store") as store:
        yield store
        assert digest_of(store.settings.data_dir) == store.digest


async def replay(
    settings: Settings, command: str, *options: str, status: int = 0
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Run a command; return its summary and its findings."""
    ended = await rmos(settings, "replay", command, *options, "--json")
    assert ended.status == status, ended
    *findings, last = ended.documents
    return last["summary"], findings


def quarantined(number: int) -> str:
    body = run_requests()[48 + number]
    assert body.key == f"run_bad_{number}".encode()
    digest = sha256_of_json(incomplete_request(run_id=f"run_bad_{number}"))
    return f"quarantine/{digest[:2]}/{digest[2:4]}/{digest}"


def place_of_run(made: Made, number: int) -> Place:
    """Return where the record is that made `run_<number>`, one of the first forty."""
    assert run_requests()[number].key == f"run_{number}".encode()
    return made.runs[number]


def place_of_conflict(made: Made, number: int) -> Place:
    """Return where the later request for `run_<number>` is, which is another."""
    requests = run_requests()
    later = [n for n, each in enumerate(requests) if each.key == f"run_{number}".encode()][1]
    assert b"changed" in (requests[later].value or b"")
    return made.runs[later]


async def told_to_kafka(settings: Settings) -> dict[str, Any]:
    """Return how far every topic and every group has come."""
    topics = [topic.name for topic in topic_table(settings.prefix)]
    told: dict[str, Any] = {"ends": await partition_offsets(settings, topics)}
    for group, read in consumer_groups(settings.prefix).items():
        told[group] = await committed_offsets(settings, group, read)
    return told


async def test_a_store_that_nobody_touched_is_as_its_topics_say(made: Made) -> None:
    before = tree_of(made.settings.data_dir), rows(made.settings.data_dir)
    summary, findings = await replay(made.settings, "verify")
    assert findings == []
    assert summary == {
        "command": "verify",
        "records": made.records,
        "identical": summary["identical"],
        **dict.fromkeys(("missing", "different", "foreign", "upload_missing"), 0),
        **dict.fromkeys(("internal_error", "waiting", "unreferenced", "pending"), 0),
        "differs": False,
    }
    content = [path for path in before[0] if not path.startswith("ledger/")]
    assert summary["identical"] >= len(content)
    assert (tree_of(made.settings.data_dir), rows(made.settings.data_dir)) == before


async def test_everything_but_the_topics_is_lost_and_comes_back(made: Made, tmp_path: Path) -> None:
    settings = made.emptied(tmp_path / "restored")
    before = await told_to_kafka(settings)
    summary, findings = await replay(settings, "restore")
    assert findings == []
    assert digest_of(settings.data_dir) == made.digest
    assert summary["consumed"] == summary["records"] == made.records
    sums = await rmos(made.settings, "ledger", "sums", "--root")
    assert sums.out.strip() == summary["store_root"]
    assert await told_to_kafka(settings) == before
    assert rows(settings.data_dir) | {"flood_windows": []} == rows(made.settings.data_dir) | {
        "flood_windows": []
    }
    again, findings = await replay(settings, "restore")
    assert (findings, again["consumed"], again["restored"]) == ([], 0, 0)


DAMAGED = {
    "artifact": (f"{DATE}/run_7.json", f"{DATE}/run_8.json", f"{DATE}/run_foreign.json"),
    "link": (LINK, f"{DATE}/run_4_advisory_adv_1.json", f"{DATE}/run_4_advisory_foreign.json"),
    "attachment": (BLOB, None, "attachments/ab/ab/" + "ab" * 32),
    "quarantine": (quarantined(0), quarantined(1), "quarantine/ab/cd/abcd" + "0" * 60),
}


@pytest.mark.parametrize("what", DAMAGED)
async def test_one_changed_one_missing_and_one_foreign_file_are_found_exactly(
    made: Made, tmp_path: Path, what: str
) -> None:
    settings = made.copied(tmp_path / "store")
    changed, missing, foreign = DAMAGED[what]
    expected = {changed: sha256((settings.data_dir / changed).read_bytes())}
    damage(settings.data_dir / changed)
    if missing is not None:
        expected[missing] = sha256((settings.data_dir / missing).read_bytes())
        (settings.data_dir / missing).unlink()
    (settings.data_dir / foreign).parent.mkdir(parents=True, exist_ok=True)
    (settings.data_dir / foreign).write_bytes(b"{}")

    before = tree_of(settings.data_dir)
    summary, findings = await replay(settings, "verify", status=5)
    told = {(each["finding"], each["what"], each["path"]): each for each in findings}
    assert told.keys() == {
        ("different", what, changed),
        *({("missing", what, missing)} if missing else set()),
        ("foreign", what, foreign),
    }
    for kind, path in (("different", changed), ("missing", missing)):
        if path is not None:
            assert told[kind, what, path]["expected"] == expected[path]
    assert told["different", what, changed]["found"] != expected[changed]
    assert (summary["different"], summary["foreign"], summary["differs"]) == (1, 1, True)
    assert tree_of(settings.data_dir) == before

    left, findings = await replay(settings, "restore", status=5)
    assert {(each["finding"], each["path"]) for each in findings} == {
        *([("restored", missing)] if missing else []),
        ("different", changed),
    }
    assert left["different"] == 1
    after = tree_of(settings.data_dir)
    assert {path for path in after if before.get(path) != after[path]} == {missing} - {None}
    if missing is not None:
        assert sha256(after[missing][1]) == expected[missing]


async def test_deleted_files_of_every_kind_come_back_while_workers_run(
    made: Made, tmp_path: Path
) -> None:
    settings = made.copied(tmp_path / "store")
    for path in (f"{DATE}/run_9.json", LINK, BLOB, quarantined(2)):
        (settings.data_dir / path).unlink()
    async with persist_worker(settings):
        summary, findings = await replay(settings, "restore")
    assert {each["finding"] for each in findings} == {"restored"}
    assert summary["restored"] == 4
    assert digest_of(settings.data_dir) == made.digest


LOST: dict[str, Callable[[Path], None]] = {
    "the files and their index": lambda root: (
        shutil.rmtree(root / "runs"),
        [path.unlink() for path in root.glob(f"{INDEX_FILE}*")],
    )[0],
    "the ledger": lambda root: shutil.rmtree(root / "ledger"),
    "one log": lambda root: shutil.rmtree(next(iter((root / "ledger/1").iterdir()))),
    "rows": lambda root: change_index(root, "DELETE FROM advisories"),
}


@pytest.mark.parametrize("lost", LOST)
async def test_a_part_that_is_lost_comes_back(made: Made, tmp_path: Path, lost: str) -> None:
    settings = made.copied(tmp_path / "store")
    LOST[lost](settings.data_dir)
    summary, findings = await replay(settings, "verify", status=5)
    assert summary["missing"] > 0
    assert {each["finding"] for each in findings} == {"missing"}
    await replay(settings, "restore")
    assert digest_of(settings.data_dir) == made.digest
    assert rows(settings.data_dir)["runs"] == rows(made.settings.data_dir)["runs"]
    assert rows(settings.data_dir)["advisories"] == rows(made.settings.data_dir)["advisories"]
    summary, findings = await replay(settings, "verify")
    assert findings == []


@pytest.mark.parametrize("ledger", [True, False])
async def test_a_range_from_the_middle_never_lets_a_later_conflict_win(
    made: Made, tmp_path: Path, ledger: bool
) -> None:
    first, later = place_of_run(made, 6), place_of_conflict(made, 6)
    assert later.offset > first.offset
    if ledger:
        settings = made.copied(tmp_path / "store")
        shutil.rmtree(settings.data_dir / "runs")
        for path in settings.data_dir.glob(f"{INDEX_FILE}*"):
            path.unlink()
    else:
        settings = made.emptied(tmp_path / "store").model_copy(update={"ledger_enabled": False})
    place = f"{settings.topics.run_requests}/{later.partition}:{later.offset}-"
    await replay(settings, "restore", "--range", place)
    assert not (settings.data_dir / f"{DATE}/run_6.json").exists()
    whole = f"{settings.topics.run_requests}/{later.partition}"
    await replay(settings, "restore", "--range", whole)
    assert (settings.data_dir / f"{DATE}/run_6.json").read_bytes() == (
        made.settings.data_dir / f"{DATE}/run_6.json"
    ).read_bytes()


async def test_a_row_that_names_the_later_conflict_does_not_make_it_right(
    made: Made, tmp_path: Path
) -> None:
    """Somebody replaced file and row by those of the later request; the leaf tells."""
    settings = made.copied(tmp_path / "store")
    path, later = f"{DATE}/run_6.json", place_of_conflict(made, 6)
    forged = judged(run_request(run_id="run_6", notes="changed"))
    (settings.data_dir / path).unlink()
    (settings.data_dir / path).write_bytes(forged.built.content)
    change_index(
        settings.data_dir,
        "UPDATE runs SET artifact_sha256=?, request_sha256=?, size_bytes=?, source_offset=? "
        "WHERE run_id='run_6'",
        *(forged.artifact_sha256, forged.request_sha256),
        *(len(forged.built.content), later.offset),
    )
    middle = f"{settings.topics.run_requests}/{later.partition}:{later.offset}-"
    _, findings = await replay(settings, "verify", "--range", middle, status=5)
    assert {(each["finding"], each["what"]) for each in findings} == {("different", "row")}
    _, findings = await replay(settings, "verify", status=5)
    told = {(each["finding"], each["what"], each["path"]) for each in findings}
    assert ("different", "artifact", path) in told
    before = tree_of(settings.data_dir)
    await replay(settings, "restore", status=5)
    assert tree_of(settings.data_dir) == before


async def test_a_range_restores_no_more_than_itself(made: Made, tmp_path: Path) -> None:
    settings = made.emptied(tmp_path / "store")
    chosen = place_of_run(made, 12)
    topic = settings.topics.run_requests
    summary, _ = await replay(
        settings,
        "restore",
        "--range",
        f"{topic}/{chosen.partition}:{chosen.offset}-{chosen.offset + 1}",
    )
    assert summary["records"] == 1
    assert [path for path in tree_of(settings.data_dir) if not path.startswith("ledger")] == [
        f"{DATE}/run_12.json"
    ]


async def test_a_time_range_is_what_the_broker_says_it_is(made: Made, tmp_path: Path) -> None:
    """Ends are `offsets_for_times` of each partition, and only what lies between is restored."""
    settings, topic = made.emptied(tmp_path / "store"), made.settings.topics.run_requests
    records = await read_topic(settings, topic)
    times = sorted({each.timestamp for each in records})
    since, until = times[len(times) // 3], times[2 * len(times) // 3]
    options = ("--since", moment(since), "--until", moment(until))
    _, planned = await replay(settings, "plan", *options)
    asked = {(each["topic"], each["partition"]): each["read"] for each in planned}
    for place, read in (await ends_by_broker(settings, topic, since, until)).items():
        assert asked[place] == read

    within = [each for each in records if since <= each.timestamp < until]
    assert 0 < len(within) < len(records)
    assert sum(each["offsets"] for each in planned if each["topic"] == topic) == len(within)
    summary, _ = await replay(settings, "restore", *options)
    names = settings.topics
    others = [
        each
        for other in (names.legacy_runs, names.advisory_requests)
        for each in await read_topic(settings, other)
        if since <= each.timestamp < until
    ]
    assert summary["records"] == len(within) + len(others)
    made_there = {(each.topic, each.partition, each.offset) for each in [*within, *others]}
    expected = {
        row["artifact_path"]
        for row in rows(made.settings.data_dir)["runs"]
        if (row["source_topic"], row["source_partition"], row["source_offset"]) in made_there
    }
    there = {path for path in tree_of(settings.data_dir) if path.startswith("runs/")}
    assert {path for path in there if "_advisory_" not in path} == expected
    assert len(expected) > 5


def moment(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")


async def ends_by_broker(
    settings: Settings, topic: str, since: int, until: int
) -> dict[tuple[str, int], dict[str, int]]:
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.bootstrap_servers)
    await consumer.start()
    try:
        places = partitions_of(settings, topic)
        ends = await consumer.end_offsets(places)
        begins = await consumer.offsets_for_times(dict.fromkeys(places, since))
        stops = await consumer.offsets_for_times(dict.fromkeys(places, until))
    finally:
        await consumer.stop()

    def offset(found: dict[TopicPartition, Any], place: TopicPartition) -> int:
        return found[place].offset if found[place] else ends[place]

    return {
        (each.topic, each.partition): {"from": offset(begins, each), "to": offset(stops, each)}
        for each in places
    }


async def test_one_run_is_restored_out_of_its_partition_alone(made: Made, tmp_path: Path) -> None:
    settings = made.emptied(tmp_path / "store")
    place = place_of_run(made, 3)
    _, planned = await replay(settings, "plan", "--run-id", "run_3")
    runs = [each["partition"] for each in planned if each["topic"] == settings.topics.run_requests]
    assert runs == [place.partition]
    await replay(settings, "restore", "--run-id", "run_3")
    there = [path for path in tree_of(settings.data_dir) if path.startswith("runs/")]
    assert there == [f"{DATE}/run_3.json", LINK]
    assert "ledger" not in {path.split("/")[0] for path in tree_of(settings.data_dir)}
    # The rest follows without a gap.
    await replay(settings, "restore")
    assert digest_of(settings.data_dir) == made.digest


async def test_what_the_workers_have_passed_is_not_restored_beside_them(
    made: Made, tmp_path: Path
) -> None:
    """A worker that is further on would leave a gap in the ledger that nothing closes."""
    settings = made.emptied(tmp_path / "store")
    async with persist_worker(made.settings):
        ended = await rmos(settings, "replay", "restore")
    assert ended.status == 6
    assert f"Stop the workers of {settings.topics.persist_group} first, 1 of them run" in ended.err
    assert tree_of(settings.data_dir) == {}


@pytest.mark.slow
async def test_killed_ten_times_it_comes_to_the_same_end(
    made: Made, tmp_path: Path, workers: WorkerPool
) -> None:
    settings = made.emptied(tmp_path / "store")
    killed = 0
    while killed < 10:
        before = stored(settings)
        # As slow as it must be for the process to be met in the middle.
        process = workers.fork([str(RMOS), "replay", "restore", "--rate", "60"], settings)
        await wait_until(
            lambda: stored(settings) > before or process.process.poll() is not None,  # noqa: B023
            "the restore has stored something more",
        )
        if process.process.poll() is not None:
            break
        process.kill()
        killed += 1
    assert killed == 10
    assert digest_of(settings.data_dir) != made.digest
    _, findings = await replay(settings, "restore")
    assert findings == []
    assert digest_of(settings.data_dir) == made.digest
    summary, findings = await replay(settings, "verify")
    assert (findings, summary["differs"]) == ([], False)


def stored(settings: Settings) -> int:
    """Return how far the store has come, in offsets."""
    if not (settings.data_dir / INDEX_FILE).exists():
        return 0
    try:
        return sum(row["next_offset"] for row in rows(settings.data_dir)["positions"])
    except sqlite3.OperationalError:
        return 0  # its tables are being made
