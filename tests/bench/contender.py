"""A measured program: a process with all its children, their CPU time and their memory."""

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

START_SECONDS = 60.0
STOP_SECONDS = 45.0


class BenchError(Exception):
    """A measurement could not be made; its text says which and why."""


@dataclass(frozen=True, slots=True)
class Cpu:
    """CPU seconds of a process and its children, all threads together."""

    user: float
    system: float

    def __sub__(self, other: "Cpu") -> "Cpu":
        return Cpu(self.user - other.user, self.system - other.system)

    @property
    def total(self) -> float:
        """User and system time together."""
        return self.user + self.system


class Contender:
    """One program, from its start to its end; what it says goes to a file."""

    def __init__(self, command: Sequence[str], environment: dict[str, str], log: Path) -> None:
        self.log = log
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=file, stderr=file
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._process.poll() is None:
            # Those of many workers would outlive the shell that they were started by.
            for each in reversed(_tree(self.pid)):
                each.kill()
            self._process.wait(STOP_SECONDS)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def check(self) -> None:
        """Raise where the process has ended."""
        if self._process.poll() is not None:
            tail = self.text[-2000:]
            raise BenchError(f"{self.log.name} ended with {self._process.returncode}: {tail}")

    def say(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def wait_for(self, text: str, seconds: float = START_SECONDS) -> None:
        """Wait until it has said `text`."""
        deadline = time.monotonic() + seconds
        while text not in self.text:
            self.check()
            if time.monotonic() > deadline:
                raise BenchError(f"{self.log.name} did not say {text!r}: {self.text[-2000:]}")
            time.sleep(0.02)

    def cpu(self) -> Cpu:
        """Return the CPU time so far."""
        return cpu_of(self.pid)

    def peak_rss_mb(self) -> float:
        """Return the most resident memory so far, as the sum over its processes.

        Pages that they share count once for each.
        """
        files = (Path(f"/proc/{each.pid}/status") for each in _tree(self.pid))
        return sum(_proc_number(file, "VmHWM") for file in files) / 1024

    def written_kb(self) -> float:
        """Return what its processes have given to the disk so far, in KiB."""
        files = (Path(f"/proc/{each.pid}/io") for each in _tree(self.pid))
        return sum(_proc_number(file, "write_bytes") for file in files) / 1024

    def stop(self) -> None:
        """Ask it to stop, and wait until it has."""
        self.check()
        self._process.terminate()
        self._process.wait(STOP_SECONDS)


def cpu_of(pid: int) -> Cpu:
    """Return the CPU time of a process and its living children so far."""
    times = [each.cpu_times() for each in _tree(pid)]
    return Cpu(sum(each.user for each in times), sum(each.system for each in times))


def _tree(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def _proc_number(file: Path, name: str) -> int:
    for line in file.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise BenchError(f"the kernel does not tell {name}")
