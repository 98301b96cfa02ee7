"""`rmos` against the broker of the tests: in this process, which is faster, or in its own."""

import asyncio
import json
import os
from dataclasses import dataclass
from typing import Any

from typer.testing import CliRunner

from pipeline.cli.commands import app
from pipeline.errors import RmosError
from pipeline.settings import Settings
from tests.e2e.worker_processes import REPOSITORY, RMOS, worker_environment


@dataclass(frozen=True, slots=True)
class Ended:
    status: int
    out: str
    err: str

    @property
    def documents(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


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
