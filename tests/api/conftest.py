"""The API over real files, asked without a network: no broker, no socket."""

from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI

from pipeline.api import application
from pipeline.api.application import _with_routes, create_api
from pipeline.api.dependencies import ApiDependencies, OneByOne, ThreadPool
from pipeline.api.drawings import Drawings
from pipeline.api.http.middleware import RequestMiddleware
from pipeline.api.http.pages import Pages
from pipeline.api.http.tokens import Tokens
from pipeline.api.publishing import LazyPublisher
from pipeline.broker.event_reader import EventTail
from pipeline.broker.publisher import AdvisoryPublisher, RunPublisher
from pipeline.broker.reading.looks import BrokerLooks
from pipeline.core.advisories.verdict import judge_advisory_record
from pipeline.core.record import RecordId, RecordSource
from pipeline.errors import BrokerError
from pipeline.settings import Settings, read_settings
from pipeline.storage.advisory_store import AdvisoryStore
from pipeline.storage.batch_plan import JudgedRecord
from pipeline.storage.reader import RunReader, open_reader
from pipeline.storage.run_store import RunStore
from pipeline.storage.store import open_store_to_write
from tests.builders import judged, record, sha256
from tests.storage.stores import make_store

RUNS = "/api/rmos/runs"
BODY_AND_TIME = (b"", 0)
JSON = {"content-type": "application/json"}

# Applications that no test has open, by the routers of their pages, which they keep.
_FREE: dict[tuple[int, ...], list[FastAPI]] = defaultdict(list)


@dataclass(frozen=True, slots=True)
class Api:
    """An API over a store, and a client that asks it."""

    root: Path
    app: RequestMiddleware
    deps: ApiDependencies
    http: httpx.AsyncClient

    async def get(self, path: str = "", **headers: str) -> httpx.Response:
        """GET a path below that of the runs."""
        return await self.http.get(RUNS + path, headers=headers)

    async def put(self, sha256: str, content: Any, **headers: str) -> httpx.Response:
        """PUT a blob."""
        url = f"{RUNS}/attachments/{sha256}"
        return await self.http.put(url, content=content, headers=headers)

    def add_runs(self, *requests: dict[str, Any]) -> None:
        """Store runs as a worker does."""
        add_runs(self.root, *requests)

    def add_advisories(self, *requests: dict[str, Any]) -> None:
        """Link advisories as a worker does."""
        store = AdvisoryStore(open_store_to_write(self.root))
        first = sum(1 for _ in store.index.all_advisories())
        records = [
            JudgedRecord.of(
                RecordSource(1, RecordId("rmos.advisories.requests", 0, first + offset)),
                judge_advisory_record(*record(request)),
                *BODY_AND_TIME,
            )
            for offset, request in enumerate(requests)
        ]
        result = store.commit(records)
        assert {outcome.kind for outcome in result.outcomes} == {"linked"}
        store.close()


def tokens_of(folder: Path, *lines: tuple[str, str, str]) -> Tokens:
    """Return the tokens of a new file; a line is a name, a role and the token."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "tokens.txt"
    text = "".join(f"{name} {role} {sha256(token)}\n" for name, role, token in lines)
    file.write_text(text, encoding="utf-8")
    return Tokens(file)


def add_runs(root: Path, *requests: dict[str, Any]) -> None:
    store = RunStore(open_store_to_write(root))
    first = store.index.count()
    store.commit(
        [
            JudgedRecord.of(
                RecordSource(1, RecordId("rmos.runs.requests", 0, first + offset)),
                judged(request),
                *BODY_AND_TIME,
            )
            for offset, request in enumerate(requests)
        ]
    )
    store.close()


@asynccontextmanager
async def api_over(
    root: Path,
    *,
    tokens: Tokens | None = None,
    pages: Pages | None = None,
    broker: BrokerLooks | None = None,
    **settings: Any,
) -> AsyncIterator[Api]:
    """Serve the store at `root`, made where there is none; no broker answers."""
    if not (root / "store.json").exists():
        make_store(root)
    # The server's paths must not be in any answer.
    deps = api_dependencies(read_settings(data_dir=root, **settings), open_reader(root), broker)
    async with api_of(deps, root, tokens, pages) as api:
        yield api


@asynccontextmanager
async def api_of(
    deps: ApiDependencies, root: Path, tokens: Tokens | None = None, pages: Pages | None = None
) -> AsyncIterator[Api]:
    """Serve a store that is open; no answer may name the folder `root`."""
    app = application_of(deps, tokens, pages)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    hooks = {"response": [_refuse_server_paths(root)]}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://127.0.0.1", event_hooks=hooks
    ) as http:
        yield Api(root, app, deps, http)
    await deps.broker.stop()
    deps.lookup.close()
    deps.transfer.close()
    deps.drawings.close()
    deps.reader.close()
    _free(pages).append(cast(FastAPI, app.app))


def application_of(
    deps: ApiDependencies, tokens: Tokens | None, pages: Pages | None
) -> RequestMiddleware:
    """Make an application of routes that an earlier test has used, where there are any.

    At the first request of each, FastAPI takes 40 ms to prepare its routes. They depend on no store
    and have no state but what `create_api` sets.
    """

    def with_routes(*given: Any) -> FastAPI:
        free = _free(pages)
        return free.pop() if free else _with_routes(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(application, "_with_routes", with_routes)
        return create_api(deps, tokens, pages)


def _free(pages: Pages | None) -> list[FastAPI]:
    routers = () if pages is None else (*pages.routers, *pages.open_routers)
    return _FREE[tuple(map(id, routers))]


def _refuse_server_paths(root: Path) -> Callable[[httpx.Response], Any]:
    async def check(answer: httpx.Response) -> None:
        content = await answer.aread()
        assert str(root).encode() not in content
        assert str(root) not in str(answer.headers)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-request-id"]

    return check


def api_dependencies(
    settings: Settings, reader: RunReader, broker: BrokerLooks | None = None
) -> ApiDependencies:
    async def no_broker() -> None:
        message = "No Kafka broker answers at nowhere."
        raise BrokerError(message)

    async def no_holder(topic: str, partition: int, offset: int) -> None:
        """Know of nothing that holds a record up."""

    async def checks() -> dict[str, bool]:
        return {"broker answers": False}

    return ApiDependencies(
        settings=settings,
        runs=LazyPublisher(lambda: RunPublisher(settings), no_broker, no_holder),
        lookup=OneByOne(2, "lookup"),
        checks=checks,
        reasons=tuple,
        reader=reader,
        advisories=LazyPublisher(lambda: AdvisoryPublisher(settings), no_broker, no_holder),
        transfer=ThreadPool(2, "transfer"),
        drawings=Drawings(),
        broker=broker or BrokerLooks(settings, EventTail()),
    )


OpenApi = Callable[..., AbstractAsyncContextManager[Api]]


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with api_over(tmp_path / "store") as running:
        yield running
