"""Persist workers as processes of their own: `rmos worker persist`, as in production."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipeline.settings import Settings
from tests.e2e.forked import ForkedProcess
from tests.e2e.kafka_reading import wait_until

RMOS = Path(sys.executable).with_name("rmos")
REPOSITORY = Path(__file__).resolve().parents[2]
STOP_SECONDS = 45.0
WITHOUT_RIGHTS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
"""Runs a program as root with no more rights than its owner bits give."""


def worker_environment(settings: Settings, **changes: str) -> dict[str, str]:
    """Return the environment of a worker: ours without settings, and what the test sets."""
    inherited = {name: value for name, value in os.environ.items() if "RMOS_" not in name}
    store = {"RMOS_DATA_DIR": str(settings.data_dir)}
    if settings.store_url is not None and settings.index_url is not None:
        index_url = settings.index_url.get_secret_value()
        store = {"RMOS_STORE_URL": settings.store_url, "RMOS_INDEX_URL": index_url}
    return {
        **inherited,
        **store,
        "RMOS_BOOTSTRAP_SERVERS": settings.bootstrap_servers,
        "RMOS_PREFIX": settings.prefix,
        # The least that a broker accepts by default.
        "RMOS_SESSION_TIMEOUT_MS": "6000",
        **changes,
    }


def _executed(
    command: Sequence[str], environment: Mapping[str, str], folder: Path, output: Path
) -> subprocess.Popen[bytes]:
    with output.open("ab") as file:
        return subprocess.Popen(
            command,
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


def started(
    command: Sequence[str], environment: Mapping[str, str], folder: Path, output: Path
) -> subprocess.Popen[bytes] | ForkedProcess:
    """Start `rmos` or a module of the tests, forked where no other program or code is asked for."""
    own = "PYTHONPATH" not in environment and command[0] in {str(RMOS), sys.executable}
    return (ForkedProcess if own else _executed)(command, environment, folder, output)


class WorkerProcess:
    """One worker process; what it says goes to a file, so that it never waits for a reader."""

    def __init__(self, process: subprocess.Popen[bytes] | ForkedProcess, output: Path) -> None:
        self.output = output
        self.process = process

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def text(self) -> str:
        return self.output.read_text(encoding="utf-8")

    def log_lines(self) -> list[dict[str, Any]]:
        """Return the log lines; each must be one JSON object."""
        return [json.loads(line) for line in self.text.splitlines()]

    def logged(self, event: str) -> list[dict[str, Any]]:
        # The last line may be half written.
        whole = self.text.rpartition("\n")[0].splitlines()
        lines = [json.loads(line) for line in whole if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    def check(self) -> None:
        """Fail where the process has ended."""
        assert self.process.poll() is None, f"exit {self.process.returncode}: {self.text}"

    async def wait_until_started(self) -> None:
        def is_started() -> bool:
            self.check()
            return bool(self.logged("persist worker started"))

        await wait_until(is_started, "the worker started")

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(STOP_SECONDS)

    async def ended(self, *, seconds: float = STOP_SECONDS) -> int:
        """Wait until the process ends by itself; return its exit status."""
        try:
            await wait_until(
                lambda: self.process.poll() is not None, "the process ended", seconds=seconds
            )
        except AssertionError as error:
            error.add_note(self.text)
            raise
        return self.process.returncode

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.send(number)
        return await self.ended()


class WorkerPool:
    """Starts workers for one test and leaves none behind."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[WorkerProcess] = []

    def start(
        self, settings: Settings, *options: str, wrapper: Sequence[str] = (), **environment: str
    ) -> WorkerProcess:
        command = [*wrapper, str(RMOS), "worker", "persist", *options]
        return self._begin(started, command, settings, environment)

    def fork(self, command: Sequence[str], settings: Settings, **environment: str) -> WorkerProcess:
        """Start `rmos` or a module of the tests in the time of a fork."""
        return self._begin(started, command, settings, environment)

    def run(self, command: Sequence[str], settings: Settings, **environment: str) -> WorkerProcess:
        """Start a program as a shell does."""
        return self._begin(_executed, command, settings, environment)

    def _begin(
        self,
        begin: Callable[..., subprocess.Popen[bytes] | ForkedProcess],
        command: Sequence[str],
        settings: Settings,
        environment: Mapping[str, str],
    ) -> WorkerProcess:
        output = self._folder / f"worker-{len(self._started)}.log"
        output.touch()
        process = begin(command, worker_environment(settings, **environment), REPOSITORY, output)
        self._started.append(WorkerProcess(process, output))
        return self._started[-1]

    def kill_all(self) -> None:
        for worker in self._started:
            if worker.process.poll() is None:
                # A driver has processes of its own, in its session.
                with suppress(ProcessLookupError):
                    os.killpg(worker.pid, signal.SIGKILL)
                worker.kill()


@contextmanager
def worker_pool(folder: Path) -> Iterator[WorkerPool]:
    pool = WorkerPool(folder)
    try:
        yield pool
    finally:
        pool.kill_all()


def only_sentence(text: str) -> str:
    """Return what a command said, which must be one line that begins with Error."""
    lines = [line for line in text.splitlines() if not line.startswith("{")]
    assert len(lines) == 1, text
    assert lines[0].startswith("Error: "), text
    return lines[0].removeprefix("Error: ")
