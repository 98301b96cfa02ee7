"""The whole service in this process: workers and API on the real broker, asked over HTTP."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from pipeline.app.advise import advise_worker
from pipeline.app.http import api_server
from pipeline.app.persist import persist_worker
from pipeline.broker.local.broker import LocalBroker
from pipeline.settings import Settings
from tests.builders import encode
from tests.e2e.kafka_reading import ADVISORY_TOPICS, RUN_TOPICS, new_settings, topics_and_store

RUNS = "/api/rmos/runs"
JSON = {"content-type": "application/json"}
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class ApiService:
    """A running service.

    Attributes:
        http: Asks it; paths are relative to its root.
    """

    settings: Settings
    http: httpx.AsyncClient

    async def post(self, request: dict[str, Any], **headers: str) -> httpx.Response:
        """POST a run request."""
        return await self.http.post(RUNS, content=encode(request), headers={**JSON, **headers})

    async def attach(self, run_id: str, advisory: dict[str, Any]) -> httpx.Response:
        """POST an advisory for a run."""
        url = f"{RUNS}/{run_id}/attach-advisory"
        return await self.http.post(url, content=encode(advisory), headers=JSON)

    async def get(self, path: str = "", **headers: str) -> httpx.Response:
        """GET a path below that of the runs."""
        return await self.http.get(RUNS + path, headers=headers)

    async def put(self, sha256: str, content: Any) -> httpx.Response:
        """PUT a blob."""
        return await self.http.put(f"{RUNS}/attachments/{sha256}", content=content)

    def path(self, name: str) -> Path:
        """Return where something lies in the store."""
        return self.settings.data_dir / name


@asynccontextmanager
async def api_only(settings: Settings, **changes: Any) -> AsyncIterator[ApiService]:
    """Run the API alone over a store, on any free port."""
    settings = settings.model_copy(update={"api_port": 0, **changes})
    async with api_server(settings) as server:
        base = f"http://{server.address}"
        async with httpx.AsyncClient(base_url=base, timeout=PATIENCE_SECONDS) as http:
            yield ApiService(settings, http)


@asynccontextmanager
async def api_service(
    broker: LocalBroker,
    data_dir: Path,
    *,
    needed: Collection[str] | None = (*RUN_TOPICS, *ADVISORY_TOPICS),
    **changes: Any,
) -> AsyncIterator[ApiService]:
    """Run the topics `needed`, a store, both workers and the API."""
    settings = new_settings(broker, data_dir, **changes)
    async with (
        topics_and_store(broker, settings, needed),
        persist_worker(settings),
        advise_worker(settings),
        api_only(settings) as service,
    ):
        yield service
