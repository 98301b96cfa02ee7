"""Every end of a service: one sentence with its cause, within the limit, whatever hangs."""

import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from pipeline.broker.local.broker import LocalBroker
from pipeline.broker.local.loopback import HOST
from pipeline.settings import Settings, read_settings
from tests.builders import run_request
from tests.e2e.kafka_reading import (
    Sending,
    new_settings,
    produce,
    sending,
    topics_and_store,
    wait_until,
)
from tests.e2e.worker_processes import RMOS, WorkerPool, WorkerProcess, only_sentence

pytestmark = pytest.mark.e2e

LIMIT_SECONDS = 4.0
LIMIT = {"RMOS_STOP_TIMEOUT_SECONDS": str(LIMIT_SECONDS)}
SERVICES = {
    "persist": ("worker", "persist"),
    "advise": ("worker", "advisories"),
    "audit": ("worker", "audit"),
    "all": ("worker", "all"),
    "api": ("api",),
}


@pytest.fixture
async def hanging(
    mortal_broker: LocalBroker, tmp_path: Path
) -> AsyncIterator[tuple[Settings, Callable[[], None]]]:
    """Give settings of a broker, and what makes it hang; it goes on afterwards."""
    settings, pid = new_settings(mortal_broker, tmp_path / "store"), mortal_broker.pid
    assert pid is not None
    async with topics_and_store(mortal_broker, settings):
        try:
            yield settings, lambda: os.kill(pid, signal.SIGSTOP)
        finally:
            os.kill(pid, signal.SIGCONT)
            # Its controller has heard from it again once it takes a record.
            await produce(settings, [Sending(b"key", b"{}")])


def started(worker: WorkerProcess, services: int) -> bool:
    worker.check()
    lines = [line for line in worker.text.splitlines() if ' started"' in line]
    return len(lines) >= services


async def seconds_to_end(worker: WorkerProcess) -> float:
    begun = time.monotonic()
    worker.send(signal.SIGTERM)
    await worker.ended()
    return time.monotonic() - begun


@pytest.mark.slow
@pytest.mark.parametrize("service", SERVICES)
async def test_a_broker_that_hangs_does_not_hold_up_the_end(
    hanging: tuple[Settings, Callable[[], None]], workers: WorkerPool, service: str
) -> None:
    settings, hang = hanging
    worker = workers.run([str(RMOS), *SERVICES[service]], settings, RMOS_API_PORT="0", **LIMIT)
    await wait_until(lambda: started(worker, 3 if service == "all" else 1), "the start")
    hang()
    assert await seconds_to_end(worker) < LIMIT_SECONDS + 20
    assert all(line.startswith("{") for line in worker.text.splitlines())
    assert "Traceback" not in worker.text
    assert "CancelledError" not in worker.text
    if worker.process.returncode != 0:
        assert worker.process.returncode == 6
        (line,) = worker.logged("cut off")
        said = line["why"]
        assert f"longer than {LIMIT_SECONDS:g} s (RMOS_STOP_TIMEOUT_SECONDS)" in said


@pytest.mark.slow
async def test_a_broker_that_hangs_with_a_batch_in_hand_does_not_hold_up_the_end_either(
    hanging: tuple[Settings, Callable[[], None]], workers: WorkerPool
) -> None:
    settings, hang = hanging
    worker = workers.run([str(RMOS), *SERVICES["persist"]], settings, RMOS_STOP_TIMEOUT_SECONDS="8")
    await worker.wait_until_started()
    await produce(settings, (sending(run_request(run_id=f"run_{n}")) for n in range(3000)))
    await wait_until(lambda: bool(worker.logged("batch stored")), "a batch in hand")
    hang()
    assert await seconds_to_end(worker) < 30
    assert worker.process.returncode == 6
    (line,) = worker.logged("cut off")
    said = line["why"]
    assert f"The Kafka broker at {settings.bootstrap_servers} takes connections" in said
    assert "is done again at the next start" in said


@pytest.mark.slow
async def test_a_signal_during_the_start_ends_it_at_once(
    hanging: tuple[Settings, Callable[[], None]], workers: WorkerPool
) -> None:
    settings, hang = hanging
    hang()
    worker = workers.run([str(RMOS), *SERVICES["persist"]], settings)

    def is_connecting() -> bool:
        # The handlers are there before the first connection.
        status = Path(f"/proc/{worker.pid}/status").read_text(encoding="ascii")
        (caught,) = (line for line in status.splitlines() if line.startswith("SigCgt:"))
        return bool(int(caught.split()[1], 16) & 1 << (signal.SIGTERM - 1))

    await wait_until(is_connecting, "the handlers")
    assert await seconds_to_end(worker) < 30
    assert worker.process.returncode == 0
    assert worker.text == ""


@pytest.mark.parametrize("service", SERVICES)
async def test_a_metrics_port_that_another_service_has_is_named_before_anything_is_started(
    tmp_path: Path, workers: WorkerPool, service: str
) -> None:
    # Neither broker nor store: what is reported is found out before either is asked for.
    settings = read_settings(bootstrap_servers=f"{HOST}:1", data_dir=tmp_path / "nothing")
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        command = [str(RMOS), *SERVICES[service]]
        worker = workers.fork(command, settings, RMOS_METRICS_PORT=str(port))
        assert await worker.ended() == 2
    said = only_sentence(worker.text)
    assert f"Metrics cannot be served at {HOST}:{port}" in said
    assert "each service needs a RMOS_METRICS_PORT of its own" in said
