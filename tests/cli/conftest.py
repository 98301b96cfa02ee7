"""A store with runs in it, and the command line over it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.core.record import RecordId, RecordSource
from pipeline.disk.store_identity import create_store
from pipeline.storage.batch_plan import JudgedRecord
from pipeline.storage.run_store import RunStore
from pipeline.storage.store import open_store_to_write
from tests.builders import judged, red_request, rosette_request, router_request, run_request
from tests.cli.command_line import CommandLine, command_line

REQUESTS = (
    run_request(run_id="saw_1", created_at_utc="2025-12-18T14:03:22Z"),
    run_request(run_id="saw_2", created_at_utc="2025-12-18T14:03:22Z", tool_id="saw:rip_200"),
    red_request(run_id="saw_red", created_at_utc="2025-12-19T00:00:00Z"),
    router_request(run_id="router_1", created_at_utc="2026-01-15T21:47:51Z"),
    rosette_request(run_id="rosette_1", created_at_utc="2026-02-01T09:30:00Z"),
)


@pytest.fixture
def rmos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> Iterator[CommandLine]:
    """Give the command line over a folder in which there is no store."""
    yield from command_line(tmp_path / "store", monkeypatch, capsysbinary)


@pytest.fixture
def rmos_with_runs(rmos: CommandLine) -> CommandLine:
    """Give the command line over a store that holds REQUESTS."""
    create_store(rmos.data_dir, cluster_id="cluster", prefix="rmos")
    store = RunStore(open_store_to_write(rmos.data_dir))
    store.commit(
        [
            JudgedRecord.of(
                RecordSource(1, RecordId("rmos.runs.requests", 0, offset)),
                judged(request),
                b"",
                offset,
            )
            for offset, request in enumerate(REQUESTS)
        ]
    )
    store.close()
    return rmos
