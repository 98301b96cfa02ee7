"""`rmos` against the broker of the tests: in this process, which is faster, or in its own."""

import asyncio
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from typer.testing import CliRunner

from pipeline.cli.commands import app
from pipeline.errors import RmosError
from pipeline.settings import Settings
from tests.e2e.forked import ForkedProcess
from tests.e2e.worker_processes import REPOSITORY, RMOS, worker_environment

COMMAND_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Ended:
    status: int
    out: str
    err: str

    @property
    def documents(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def summary(self) -> dict[str, Any]:
        last: dict[str, Any] = self.documents[-1]["summary"]
        return last


async def rmos(settings: Settings, *arguments: str) -> Ended:
    """Run a command in a thread of this process, where nobody can be asked."""
    environment = worker_environment(settings)
    others = {name: None for name in os.environ if name.startswith("RMOS_")}
    runner = CliRunner(env={**others, **environment})
    done = await asyncio.to_thread(runner.invoke, app, arguments)
    if isinstance(done.exception, RmosError):
        # What `rmos` itself makes of it; see `pipeline.cli.commands.run`.
        said = "\n".join([str(done.exception), *done.exception.lines])
        return Ended(done.exception.exit_status, done.stdout, f"{done.stderr}{said}")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Ended(done.exit_code, done.stdout, done.stderr)


def rmos_forked(environment: Mapping[str, str], *arguments: str) -> Ended:
    """Run a command in a process of its own, which starts in the time of a fork."""
    with TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = ForkedProcess([str(RMOS), *arguments], environment, REPOSITORY, out, err)
        status = process.wait(COMMAND_SECONDS)
        return Ended(status, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8"))


async def rmos_process(settings: Settings, *arguments: str) -> Ended:
    """Run a command as a shell does, without a terminal."""
    process = await asyncio.create_subprocess_exec(
        str(RMOS),
        *arguments,
        env=worker_environment(settings),
        cwd=REPOSITORY,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())
