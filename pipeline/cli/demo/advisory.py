"""The chapter of the advisories: one is published, and appears beside a file that stays."""

from pathlib import Path
from typing import Any

from pipeline.broker.publisher import AdvisoryPublisher
from pipeline.cli.demo.http import DemoApi
from pipeline.cli.demo.requests import CREATED_AT_UTC
from pipeline.core.hashing import sha256_of_bytes
from pipeline.errors import IntegrityError
from schemas.run_event import RunEvent


async def show_advisory(
    root: Path, run: RunEvent, publisher: AdvisoryPublisher, api: DemoApi
) -> None:
    """Publish an explanation of a run, and read it back over HTTP.

    Raises:
        IntegrityError: The artifact changed by it.
        BrokerError: It was not linked in time.
        ServiceError: The API said something else.
    """
    assert run.run_id is not None
    screen = api.screen
    screen.chapter("An explainer engine publishes an advisory about the RED one")
    event = await publisher.publish_and_wait(_advisory(run.run_id))
    screen.line(f"  {event.outcome}: {event.link_path}")
    view = (await api.get(f"/{run.run_id}")).document
    screen.line(f"  explanation_status: {view['explanation_status']}")
    for advisory in view["advisory_inputs"]:
        words = (advisory[name] for name in ("advisory_id", "kind", "engine_id", "title"))
        screen.line("  " + "  ".join(words))
    _check_unchanged(root, run)
    screen.note("the artifact has the same bytes as before: an advisory never changes its run")


def _advisory(run_id: str) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "advisory_id": "adv_demo",
        "created_at_utc": CREATED_AT_UTC,
        "kind": "explanation",
        "engine_id": "demo_explainer",
        "engine_version": "1",
        "title": "Why this pocket was not cut",
        "content_text": "The roughing depth is not below the surface: there is nothing to cut.\n",
    }


def _check_unchanged(root: Path, run: RunEvent) -> None:
    assert run.artifact_path is not None
    if sha256_of_bytes((root / run.artifact_path).read_bytes()) != run.artifact_sha256:
        message = f"{run.artifact_path} has other bytes than before its advisory."
        raise IntegrityError(message)
