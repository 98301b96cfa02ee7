"""The local broker: the genuine Apache Kafka as one child process on loopback."""

import atexit
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from pipeline.broker.local.folder import (
    BROKER_CLASS,
    BrokerState,
    LocalFolder,
    folder_errors,
    folders_in_use,
    new_cluster_id,
    server_properties,
)
from pipeline.broker.local.loopback import HOST, cluster_id_at, free_port, is_free
from pipeline.broker.local.runtime import Downloaded, KafkaRuntime, ReportStep, kafka_runtime
from pipeline.errors import BrokerError

__all__ = ["BrokerState", "LocalBroker", "other_brokers", "running_broker", "stop_running"]

PORT_ATTEMPTS = 3
FORMAT_TIMEOUT_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 30.0
KILL_TIMEOUT_SECONDS = 10.0
POLL_SECONDS = 0.05
_FAULT_WORDS = ("ERROR", "Exception", "FATAL")

# Kept so that Python does not warn of a child that outlives its handle, as it is meant to.
_detached: list[subprocess.Popen[bytes]] = []


class LocalBroker:
    """One Kafka node over one folder: what it acknowledged is there at the next start.

    At most one broker lives on a folder; the cluster id stays the folder's for ever. The child
    runs in a session of its own, so Ctrl-C reaches us first and we stop it last. It ends with
    this process unless `detach` lets it go; a SIGKILL of this process leaves it running, and
    `stop_running` finds it.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int = 9092,
        cache_dir: Path | None = None,
        on_progress: ReportStep | None = None,
        startup_timeout_seconds: float = 60.0,
        properties: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare a broker; nothing is touched before `start`.

        Args:
            data_dir: Folder of data, configuration, log and state; made where it is missing.
            port: Port of the clients, 0 for any free one, at best the same as last time.
            cache_dir: Folder of the downloaded jars, None for the user's cache.
            on_progress: Called with what is being done, in a few words.
            startup_timeout_seconds: Longest wait for the first answer, without the download.
            properties: Kafka's, in place of ours or besides them.
        """
        self._folder = LocalFolder(data_dir)
        self._port_wanted = port
        self._cache_dir = cache_dir
        self._report: ReportStep = on_progress or (lambda _what: None)
        self._given_up = False
        self._startup_timeout_seconds = startup_timeout_seconds
        self._properties = dict(properties or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._state: BrokerState | None = None
        self._log_start_bytes = 0

    @property
    def bootstrap_servers(self) -> str:
        """Where clients connect, `127.0.0.1:PORT`; known from the first start on.

        Raises:
            BrokerError: It was never started.
        """
        return self._known().bootstrap_servers

    @property
    def cluster_id(self) -> str:
        """Id of the cluster; known from the first start on.

        Raises:
            BrokerError: It was never started.
        """
        return self._known().cluster_id

    @property
    def pid(self) -> int | None:
        """Process id of the broker, None where it does not run."""
        return self._process.pid if self._process is not None and self.is_running() else None

    def start(self) -> None:
        """Start the broker and wait until it takes requests; nothing where it already does.

        Raises:
            BrokerError: It cannot be started; the message gives the reason. No process is left.
        """
        if self.is_running():
            return
        runtime = kafka_runtime(self._cache_dir, self._on_progress)
        self._process = None
        with folder_errors(self._folder.root), self._folder.locked() as lock:
            try:
                self._start(runtime, lock)
            except BaseException:
                # Also Ctrl-C: a broker without a waiting parent would keep the folder.
                self.kill()
                raise
        atexit.register(self._stop_at_exit, os.getpid())

    def give_up(self) -> None:
        """Let a start in another thread end with its next step, and every later one."""
        self._given_up = True

    def stop(self) -> None:
        """End the broker in order, by force after 30 s; nothing where none runs."""
        atexit.unregister(self._stop_at_exit)
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """End the broker as a crash would: at once, and nothing is put in order."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(KILL_TIMEOUT_SECONDS)

    def detach(self) -> None:
        """Let the broker outlive this process; `stop_running` ends it."""
        atexit.unregister(self._stop_at_exit)
        if self._process is not None:
            _detached.append(self._process)

    def is_running(self) -> bool:
        """Return whether the process that `start` made lives."""
        return self._process is not None and self._process.poll() is None

    def exit_reason(self) -> str | None:
        """Return why the broker is gone: its exit status and the last lines of its log.

        Returns:
            None while it runs, before it was started and after `stop`.
        """
        if self._process is None or self.is_running():
            return None
        lines = self._folder.log_lines(self._log_start_bytes)[-5:]
        return "\n".join([f"exit status {self._process.returncode}", *lines])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def _on_progress(self, what: str | Downloaded) -> None:
        if self._given_up:
            raise BrokerError("The start of the local broker was given up.")
        self._report(what)

    def _known(self) -> BrokerState:
        state = self._state or self._folder.remembered()
        if state is None:
            raise BrokerError(f"The local broker in {self._folder.root} was never started.")
        return state

    def _start(self, runtime: KafkaRuntime, lock: int) -> None:
        # We hold the lock, so the process in the state file is gone; it must not be signalled.
        self._folder.forget_pid()
        for attempt in range(1, PORT_ATTEMPTS + 1):
            self._configure(runtime, *self._choose_ports())
            process = self._spawn(runtime, lock)
            if self._wait_until_it_answers():
                return
            error = self._start_error(self._log_start_bytes, process.poll())
            self.kill()
            # Another process took a port after we had looked: look again.
            lines = self._folder.log_lines(self._log_start_bytes)
            is_clash = any("Address already in use" in line for line in lines)
            if not is_clash or attempt == PORT_ATTEMPTS:
                raise error

    def _choose_ports(self) -> tuple[int, int]:
        """Choose the ports of clients and controller, those of the last start where free."""
        last = self._folder.remembered()
        port = self._port_wanted
        if port != 0 and not is_free(port):
            raise BrokerError(
                f"Port {port} at {HOST} is taken: stop what listens there, or set RMOS_BROKER_PORT "
                "to another one (RMOS_BROKER_PORT=0 takes any that is free)."
            )
        if port == 0:
            port = last.port if last and is_free(last.port) else free_port()
        if last and last.controller_port != port and is_free(last.controller_port):
            return port, last.controller_port
        return port, free_port(but=port)

    def _configure(self, runtime: KafkaRuntime, port: int, controller_port: int) -> None:
        text = server_properties(self._folder.data, port, controller_port, self._properties)
        self._folder.properties.write_text(text, encoding="ascii")
        cluster_id = self._folder.cluster_id() or self._format(runtime)
        self._state = BrokerState(None, port, controller_port, cluster_id)

    def _format(self, runtime: KafkaRuntime) -> str:
        self._on_progress(f"formatting {self._folder.data}")
        cluster_id, config = new_cluster_id(), str(self._folder.properties)
        arguments = ("format", "--cluster-id", cluster_id, "--config", config)
        start_bytes = self._folder.log_size_bytes()
        with self._into_log() as options:
            done = subprocess.run(
                runtime.command("kafka.tools.StorageTool", *arguments),
                timeout=FORMAT_TIMEOUT_SECONDS,
                check=False,
                **options,
            )
        if done.returncode != 0:
            raise self._start_error(start_bytes, done.returncode)
        return cluster_id

    def _spawn(self, runtime: KafkaRuntime, lock: int) -> subprocess.Popen[bytes]:
        self._on_progress("starting Apache Kafka")
        self._log_start_bytes = self._folder.log_size_bytes()
        with self._into_log() as options:
            process: subprocess.Popen[bytes] = subprocess.Popen(
                runtime.command(BROKER_CLASS, str(self._folder.properties)),
                start_new_session=True,
                pass_fds=(lock,),
                **options,
            )
        self._process = process
        self._state = replace(self._known(), pid=process.pid)
        self._folder.remember(self._state)
        return process

    @contextmanager
    def _into_log(self) -> Iterator[dict[str, Any]]:
        with self._folder.log.open("ab") as log:
            ends = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            yield {"cwd": self._folder.root, **ends}

    def _wait_until_it_answers(self) -> bool:
        state = self._known()
        deadline = time.monotonic() + self._startup_timeout_seconds
        while self.is_running() and time.monotonic() < deadline and not self._given_up:
            # The id distinguishes our broker from one that took the port before it could.
            if cluster_id_at(state.port) == state.cluster_id:
                return True
            time.sleep(POLL_SECONDS)
        return False

    def _start_error(self, start_bytes: int, exit_status: int | None) -> BrokerError:
        lines = self._folder.log_lines(start_bytes)
        if exit_status is None:
            lines = [*lines, f"(no answer in {self._startup_timeout_seconds:g} s)"]
        return start_error(lines, self._folder.log)

    def _stop_at_exit(self, owner: int) -> None:
        # A forked child inherits the handler, but not the broker.
        if os.getpid() == owner:
            self.stop()


def running_broker(data_dir: Path) -> BrokerState | None:
    """Return the broker that lives on `data_dir`, whatever started it; None where none does."""
    return LocalFolder(data_dir).running()


def other_brokers(data_dir: Path) -> list[tuple[Path, BrokerState]]:
    """Return the folders and brokers that live on this machine, but for the one on `data_dir`."""
    ours = LocalFolder(data_dir).root
    others = ((root, running_broker(root)) for root in folders_in_use() if root != ours)
    return sorted((root, state) for root, state in others if state is not None)


def stop_running(data_dir: Path) -> bool:
    """Stop the broker that lives on `data_dir`, whatever started it.

    Returns:
        False where none runs.

    Raises:
        BrokerError: It may not be signalled, or does not end.
    """
    folder = LocalFolder(data_dir)
    state = folder.running()
    if state is None or state.pid is None:
        return False
    whose = f"The local broker in {folder.root} (process {state.pid})"
    for number, seconds in (
        (signal.SIGTERM, STOP_TIMEOUT_SECONDS),
        (signal.SIGKILL, KILL_TIMEOUT_SECONDS),
    ):
        try:
            with suppress(ProcessLookupError):
                os.kill(state.pid, number)
        except PermissionError as error:
            raise BrokerError(f"{whose} belongs to another user.") from error
        deadline = time.monotonic() + seconds
        while folder.is_locked() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        if not folder.is_locked():
            return True
    raise BrokerError(f"{whose} does not end.")


def start_error(lines: list[str], log: Path) -> BrokerError:
    """Return why a broker did not come up, as far as its log shows.

    Args:
        lines: Its log lines.
        log: The file where that stands.
    """
    if any("No space left on device" in line for line in lines):
        return BrokerError(
            f"No space left for the local broker in {log.parent}: free some, start again."
        )
    last = last_meaningful_line(lines)
    return BrokerError(f"The local broker did not come up (see {log}); it last said: {last}")


def last_meaningful_line(lines: list[str]) -> str:
    """Return the last line with a fault, else the last that is no stack frame."""
    logged = [line for line in lines if not line.startswith(("at ", "... "))]
    faults = [line for line in logged if any(each in line for each in _FAULT_WORDS)]
    return (faults or logged or ["nothing"])[-1]
