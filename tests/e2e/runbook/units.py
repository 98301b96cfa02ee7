"""A stand-in of systemd: `systemctl` and `journalctl` over real processes of `rmos`.

It reads the unit files that the documents give, knows the few words that the runbook uses, and
refuses every other. It starts nothing again by itself.
"""

import asyncio
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.forked import ForkedProcess
from tests.e2e.kafka_reading import wait_until
from tests.e2e.worker_processes import REPOSITORY, RMOS, STOP_SECONDS, started

UNITS = REPOSITORY / "docs" / "systemd"
TARGET = "rmos.target"


class Units:
    """The units of one machine.

    Attributes:
        enabled: What the target starts.
        environment: That of all services.
        own: Settings of one service more, by the name of its unit; they win.
        wrapper: Program that runs every service, as setpriv does.
    """

    def __init__(
        self, folder: Path, environment: Mapping[str, str], enabled: list[str], file: Path
    ) -> None:
        self.enabled = enabled
        self._file = file
        self.environment = dict(environment)
        self.own: dict[str, dict[str, str]] = {}
        self.wrapper: tuple[str, ...] = ()
        self._folder = folder
        self._running: dict[str, subprocess.Popen[bytes] | ForkedProcess] = {}

    def settings(self) -> dict[str, str]:
        """Return what services and operators have in their environment, with the file of it."""
        text = self._file.read_text(encoding="utf-8") if self._file.exists() else ""
        lines = (line.partition("=") for line in text.splitlines())
        return {**self.environment, **{name: value for name, _, value in lines}}

    async def systemctl(self, words: list[str]) -> tuple[int, str]:
        match words:
            case ["start", *names]:
                for name in self._each(names):
                    self.start(name)
            case ["stop", *names]:
                await asyncio.gather(*map(self.stop, self._each(names)))
            case ["restart", *names]:
                for name in self._each(names):
                    await self.stop(name)
                    self.start(name)
            case ["show", "-P", "ExecMainStatus", name]:
                return 0, f"{self._running[name].poll() or 0}\n"
            case _:
                raise AssertionError(f"systemctl {words}")
        return 0, ""

    def journalctl(self, words: list[str]) -> tuple[int, str]:
        match words:
            case ["-t", identifier, "-o", "cat", "-n", count]:
                return 0, _joined(self.lines(identifier)[-int(count) :])
            case ["-t", identifier, "-o", "cat", "-g", wanted]:
                found = [line for line in self.lines(identifier) if wanted in line]
                return int(not found), _joined(found)
            case _:
                raise AssertionError(f"journalctl {words}")

    def lines(self, identifier: str) -> list[str]:
        """Return what a service has said, without a line that is half written."""
        path = self._folder / f"{identifier}.log"
        return path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []

    def send_signal(self, name: str, number: int) -> None:
        self._running[name].send_signal(number)

    async def ended(self, name: str) -> int:
        process = self._running[name]
        await wait_until(lambda: process.poll() is not None, f"the end of {name}")
        return process.returncode

    async def started(self, name: str, identifier: str) -> None:
        """Wait until a worker says that it has started."""

        def is_started() -> bool:
            assert self.is_running(name), self.lines(identifier)
            return any("worker started" in line for line in self.lines(identifier))

        await wait_until(is_started, f"the start of {name}")

    def is_running(self, name: str) -> bool:
        return name in self._running and self._running[name].poll() is None

    def kill_all(self) -> None:
        for process in self._running.values():
            if process.poll() is None:
                process.kill()
                process.wait(STOP_SECONDS)

    def _each(self, names: list[str]) -> list[str]:
        return [each for name in names for each in (self.enabled if name == TARGET else [name])]

    def start(self, name: str) -> None:
        if self.is_running(name):
            return
        service = _service(name)
        program, *words = service["ExecStart"].split()
        assert program.endswith("/bin/rmos")
        setting, _, value = service.get("Environment", "").partition("=")
        unit = {setting: value} if setting else {}
        self._running[name] = started(
            [*self.wrapper, str(RMOS), *words],
            {**self.settings(), **unit, **self.own.get(name, {})},
            self._folder,
            self._folder / f"{service['SyslogIdentifier']}.log",
        )

    async def stop(self, name: str) -> None:
        if self.is_running(name):
            self._running[name].send_signal(signal.SIGTERM)
            status = await self.ended(name)
            # A service that is stopped before it has heard of signals; systemd takes it as well.
            assert status in {0, -signal.SIGTERM}, f"{name} ended with {status}"


def _service(name: str) -> dict[str, str]:
    """Return the words of a unit's `[Service]`; `%i` is what stands behind the @."""
    unit, at, instance = name.partition("@")
    text = (UNITS / f"{unit}{at}.service").read_text(encoding="utf-8")
    section = text.partition("[Service]\n")[2].partition("\n[")[0]
    lines = [line for line in section.splitlines() if "=" in line and not line.startswith("#")]
    pairs = (line.replace("%i", instance).partition("=") for line in lines)
    return {name: value for name, _, value in pairs}


def _joined(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


@contextmanager
def units_of(
    folder: Path, environment: Mapping[str, str], enabled: list[str], file: Path
) -> Iterator[Units]:
    folder.mkdir(parents=True, exist_ok=True)
    units = Units(folder, environment, enabled, file)
    try:
        yield units
    finally:
        units.kill_all()
