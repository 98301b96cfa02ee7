"""Why a consumer is not ready: said once, measured, and seen by whoever asks for readiness."""

import json
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator

import pytest
import structlog

from pipeline import metrics
from pipeline.consumers.engine.readiness import Standing
from pipeline.consumers.health import HealthServer


@pytest.fixture
def standing() -> Standing:
    return Standing(f"group-{uuid.uuid4().hex}")


def measured(group: str, kind: str) -> float | None:
    labels = {"group": group, "kind": kind}
    return metrics.REGISTRY.get_sample_value("rmos_not_ready_reasons", labels)


def test_a_reason_lasts_until_it_is_cleared(standing: Standing) -> None:
    assert standing.reasons == ()
    standing.report("partitions", "There are 24.")
    standing.report("settings", "It is compacted.")
    assert standing.reasons == ("There are 24.", "It is compacted.")
    standing.clear("partitions")
    standing.clear("partitions")
    assert standing.reasons == ("It is compacted.",)
    standing.clear("settings")
    assert standing.reasons == ()


def test_a_reason_that_is_reported_again_is_logged_when_it_changes(standing: Standing) -> None:
    with structlog.testing.capture_logs() as logs:
        for sentence in ("There are 24.", "There are 24.", "There are 36."):
            standing.report("partitions", sentence)
        standing.clear("partitions")
        standing.clear("partitions")
    assert [(line["event"], line.get("why")) for line in logs] == [
        ("not ready", "There are 24."),
        ("not ready", "There are 36."),
        ("reason has ended", None),
    ]


def test_reasons_are_measured_for_all_consumers_of_a_group(standing: Standing) -> None:
    other = Standing(standing.group)
    standing.report("batch", "Offset 3 waits.")
    standing.report("batch", "Offset 4 waits.")
    other.report("batch", "Offset 7 waits.")
    assert measured(standing.group, "batch") == 2
    other.clear("batch")
    assert measured(standing.group, "batch") == 1
    standing.clear("batch")
    assert measured(standing.group, "batch") == 0


@pytest.fixture
def server(standing: Standing) -> Iterator[HealthServer]:
    running = HealthServer("127.0.0.1", 0, lambda: {"polls": True}, lambda: standing.reasons)
    running.start()
    yield running
    running.stop()


def test_a_worker_with_a_reason_is_not_ready(server: HealthServer, standing: Standing) -> None:
    assert answer(server) == (200, {"ready": True, "checks": {"polls": True}, "reasons": []})
    standing.report("settings", "It is compacted.")
    assert answer(server) == (
        503,
        {"ready": False, "checks": {"polls": True}, "reasons": ["It is compacted."]},
    )
    standing.clear("settings")
    assert answer(server)[0] == 200


def answer(server: HealthServer) -> tuple[int, object]:
    try:
        with urllib.request.urlopen(f"http://{server.address}/health/ready", timeout=60) as got:
            return got.status, json.load(got)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
