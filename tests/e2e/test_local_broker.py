"""The local broker's life: start, crash, start again, and whom it refuses."""

import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from typer.testing import CliRunner

from pipeline.broker.admin.topics import apply_topics
from pipeline.broker.connection import describe_cluster
from pipeline.broker.local.broker import LocalBroker, running_broker, stop_running
from pipeline.cli.commands import app
from pipeline.errors import BrokerError
from pipeline.settings import Settings, read_settings

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    broker = LocalBroker(tmp_path_factory.mktemp("life") / "kafka", port=0)
    yield broker
    broker.stop()


@pytest.fixture
def own_broker(life: LocalBroker) -> LocalBroker:
    """Give the broker of this file, running: started again where a test has ended it."""
    life.start()
    return life


@pytest.fixture
def own_folder(life: LocalBroker) -> Path:
    """Give the folder of that broker, on which none runs; it was started at least once."""
    folder = life._folder.root
    if not (folder / "broker.json").exists():
        life.start()
    life.stop()
    return folder


def settings_of(broker: LocalBroker) -> Settings:
    return read_settings(bootstrap_servers=broker.bootstrap_servers, prefix="life")


def is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@asynccontextmanager
async def consumer_of(broker: LocalBroker) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(bootstrap_servers=broker.bootstrap_servers)
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


async def send(broker: LocalBroker, topic: str, value: bytes) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers, acks="all")
    await producer.start()
    try:
        await producer.send_and_wait(topic, value, partition=0)
    finally:
        await producer.stop()


async def first_value(broker: LocalBroker, topic: str) -> bytes:
    async with consumer_of(broker) as consumer:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        return bytes((await consumer.getone()).value)


def test_a_second_broker_on_the_same_folder_is_refused_and_the_first_goes_on(
    own_broker: LocalBroker,
) -> None:
    folder = own_broker._folder.root
    second = LocalBroker(folder, port=0)
    with pytest.raises(BrokerError, match=rf"already uses .*process {own_broker.pid} at"):
        second.start()
    assert own_broker.is_running()
    state = running_broker(folder)
    assert state is not None
    assert (state.pid, state.cluster_id) == (own_broker.pid, own_broker.cluster_id)


def test_stop_and_status_of_another_folder_name_the_broker_that_runs(
    own_broker: LocalBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = own_broker._folder.root
    monkeypatch.setenv("RMOS_DATA_DIR", str(tmp_path / "other"))
    for command, status in (("stop", 0), ("status", 3)):
        done = CliRunner().invoke(app, ["broker", command])
        assert done.exit_code == status
        assert f"No broker runs in {tmp_path / 'other' / 'kafka'}: " in done.stderr
        assert (
            f"one runs at {own_broker.bootstrap_servers} in {folder} "
            f"(RMOS_DATA_DIR={folder.parent}, process {own_broker.pid})"
        ) in done.stderr
    assert own_broker.is_running()


def test_started_again_it_is_up_on_another_port_where_its_own_is_taken(
    own_broker: LocalBroker,
) -> None:
    host, port = own_broker.bootstrap_servers.split(":")
    own_broker.stop()
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, int(port)))
        listening.listen()
        own_broker.start()
        assert own_broker.bootstrap_servers != f"{host}:{port}"


async def test_start_answers_with_its_cluster_id_and_stop_leaves_no_process(
    own_broker: LocalBroker,
) -> None:
    folder = own_broker._folder.root
    pid = own_broker.pid
    assert pid is not None
    assert is_alive(pid)
    assert await describe_cluster(settings_of(own_broker)) == own_broker.cluster_id
    assert running_broker(folder) is not None

    own_broker.stop()
    own_broker.stop()
    assert not is_alive(pid)
    assert own_broker.pid is None
    assert not own_broker.is_running()
    assert running_broker(folder) is None


async def test_after_kill_9_it_starts_clean_with_the_same_cluster_address_and_records(
    own_broker: LocalBroker,
) -> None:
    before = (own_broker.cluster_id, own_broker.bootstrap_servers)
    topic = settings_of(own_broker).topics.run_requests
    await apply_topics(settings_of(own_broker))
    await send(own_broker, topic, b"acknowledged")

    own_broker.kill()
    assert not own_broker.is_running()
    assert (own_broker.exit_reason() or "").startswith("exit status -9")

    own_broker.start()
    assert own_broker.exit_reason() is None
    assert (own_broker.cluster_id, own_broker.bootstrap_servers) == before
    assert await first_value(own_broker, topic) == b"acknowledged"


def test_a_new_object_over_the_same_folder_after_a_crash_starts_clean(
    own_broker: LocalBroker,
) -> None:
    folder, pid = own_broker._folder.root, own_broker.pid
    own_broker.kill()
    assert running_broker(folder) is None
    with LocalBroker(folder, port=0) as next_one:
        assert next_one.cluster_id == own_broker.cluster_id
        assert next_one.pid != pid


def test_a_taken_port_is_reported_before_anything_is_made(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        broker = LocalBroker(tmp_path, port=port)
        with pytest.raises(BrokerError, match=rf"Port {port} .*RMOS_BROKER_PORT=0"):
            broker.start()
    assert not broker.is_running()
    assert not (tmp_path / "data").exists()
    assert running_broker(tmp_path) is None


def test_a_broker_that_does_not_answer_in_time_leaves_no_process(own_folder: Path) -> None:
    broker = LocalBroker(own_folder, port=0, startup_timeout_seconds=0.01)
    with pytest.raises(BrokerError, match=r"kafka\.log.*no answer in 0\.01 s"):
        broker.start()
    assert not broker.is_running()
    assert running_broker(own_folder) is None


def test_a_broker_that_dies_while_starting_is_quoted(own_folder: Path) -> None:
    meta = own_folder / "data" / "meta.properties"
    right = meta.read_text()
    meta.write_text(right.replace("node.id=1", "node.id=7"))
    with pytest.raises(BrokerError, match=r"kafka\.log.*Exception.*node"):
        LocalBroker(own_folder, port=0).start()
    meta.write_text(right)
    assert running_broker(own_folder) is None


def test_the_command_leaves_a_broker_behind_and_stops_it(own_folder: Path) -> None:
    environment = {**os.environ, "RMOS_DATA_DIR": str(own_folder.parent), "RMOS_BROKER_PORT": "0"}

    def rmos_broker(*arguments: str) -> subprocess.CompletedProcess[str]:
        code = "from pipeline.cli.broker import app; app()"
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=90, check=False
        )

    assert rmos_broker("status").returncode == 3
    started = rmos_broker("start")
    try:
        assert started.returncode == 0, started.stderr
        state = running_broker(own_folder)
        assert state is not None
        assert started.stdout == f"{state.bootstrap_servers}\n"
        assert rmos_broker("start").stdout == started.stdout
        shown = rmos_broker("status")
        assert (shown.returncode, state.cluster_id in shown.stdout) == (0, True)
        assert f'"pid": {state.pid}' in rmos_broker("status", "--json").stdout
        assert rmos_broker("stop").returncode == 0
        assert not is_alive(state.pid)
        assert rmos_broker("stop").returncode == 0
    finally:
        stop_running(own_folder)


def test_stop_running_ends_a_detached_broker(own_folder: Path) -> None:
    broker = LocalBroker(own_folder, port=0)
    broker.start()
    broker.detach()
    assert stop_running(own_folder)
    assert not broker.is_running()
    assert not stop_running(own_folder)


def test_the_broker_ends_with_a_process_that_fails(own_folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from pipeline.broker.local.broker import LocalBroker\n"
        "LocalBroker(Path(sys.argv[1]), port=0).start(); raise SystemExit(9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(own_folder)], timeout=90, check=False)
    assert done.returncode == 9
    assert running_broker(own_folder) is None
