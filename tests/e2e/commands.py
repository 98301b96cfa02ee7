"""`rmos` as a process of its own against the broker of the tests."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

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
    """Run a command without a terminal."""
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
