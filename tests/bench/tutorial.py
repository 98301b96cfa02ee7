"""The consumer that FastStream's tutorial teaches, with an fsync for each file.

A handler a message, a pydantic model, aiofiles, a decorated publisher, the default ACK policy,
the default logger. Two options are not the tutorial's: it reads from the start of the topic and
committed records only, as all contenders do.
`faststream run tests.bench.tutorial:app`, with settings in the environment.
"""

import asyncio
import hashlib
import os
from pathlib import Path

import aiofiles
from faststream import FastStream
from faststream.kafka import KafkaBroker
from pydantic import BaseModel

from pipeline.settings import read_settings
from schemas.run_request import RunRequest

settings = read_settings()
broker = KafkaBroker(settings.bootstrap_servers)
app = FastStream(broker)


@app.on_startup
async def make_folder() -> None:
    (settings.data_dir / "runs").mkdir(parents=True, exist_ok=True)


class Stored(BaseModel):
    """What is told of a stored run."""

    run_id: str
    path: str
    sha256: str


@broker.subscriber(
    settings.topics.run_requests,
    group_id=settings.topics.persist_group,
    auto_offset_reset="earliest",
    isolation_level="read_committed",
)
@broker.publisher(settings.topics.run_events)
async def store_run(request: RunRequest) -> Stored:
    content = request.model_dump_json(exclude_none=True).encode()
    path = Path(settings.data_dir) / "runs" / f"{request.run_id}.json"
    async with aiofiles.open(path, "wb") as file:
        await file.write(content)
        await file.flush()
        await asyncio.to_thread(os.fsync, file.fileno())
    return Stored(run_id=request.run_id, path=path.name, sha256=hashlib.sha256(content).hexdigest())
