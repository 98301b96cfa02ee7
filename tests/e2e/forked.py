"""Programs in processes forked from one that has read them already.

Such a process starts in milliseconds, not in a second of a processor. It is a session of its own,
is killed and ends like any other, and differs in what the kernel keeps of its start: its command
line and its first environment are those of the process that it was forked from.
"""

import gc
import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from signal import Signals
from types import ModuleType

from pipeline.cli.commands import COMMANDS

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        *("__main__", "pipeline.app", "pipeline.app.http", "pipeline.cli.commands", __name__),
        *(place.partition(":")[0] for place, _ in COMMANDS.values()),
    ]
)


class ForkedProcess:
    """A process of `rmos`, or of a module of the tests; asked as `subprocess.Popen` is.

    Args:
        command: Words of a command line: `rmos` and its own, or `python -m` and a module.
        environment: All of it.
        folder: Where it works.
        output: File to whose end standard output goes, and standard error as well.
        errors: Another file for standard error.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        output: Path,
        errors: Path | None = None,
    ) -> None:
        output.touch()
        files = (str(output), str(errors or output))
        self._process = _context.Process(
            target=_be, args=(list(command), dict(environment), str(folder), files)
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(Signals.SIGKILL)


def _be(
    command: list[str], environment: dict[str, str], folder: str, files: tuple[str, str]
) -> None:
    """Be the program of a command line."""
    # A collection would touch, and so copy, each page that is shared with the others.
    gc.freeze()
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), number)
    # In the order in which it is said, as on a terminal.
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8")
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8")
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    # What this process spawns would otherwise read the program of the tests again.
    sys.modules["__main__"] = ModuleType("__main__")
    program, *words = command
    if words[:1] == ["-m"]:
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        return
    from pipeline.cli.commands import run

    sys.argv = [program, *words]
    run()
