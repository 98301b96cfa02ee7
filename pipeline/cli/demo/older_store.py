"""The chapter of the migration: a small v1 store is carried over as history, and verified."""

import asyncio
import json
from pathlib import Path
from typing import Any

from pipeline.cli.demo.screen import Screen
from pipeline.errors import IntegrityError
from pipeline.legacy.check import verify_migration
from pipeline.legacy.migration import MigrationOptions, MigrationResult, migrate_into_store
from pipeline.legacy.source import LegacySource, open_source
from pipeline.settings import Settings


async def show_migration(settings: Settings, folder: Path, screen: Screen) -> None:
    """Write the file of an older store, carry its rows over, and compare each by hash.

    Raises:
        IntegrityError: A row is not what the source makes of it.
    """
    screen.chapter("Three rows of an older store are carried over, and verified")
    path = folder / "runs.json"
    path.write_text(json.dumps({row["run_id"]: row for row in _rows()}, indent=2))
    source = open_source(path, None)
    screen.command("rmos migrate run --from runs.json")
    result = await migrate_into_store(
        settings, source, MigrationOptions(), lambda row: None, _no_progress
    )
    _tell(result, screen)
    screen.command("rmos migrate verify --from runs.json")
    await asyncio.to_thread(_verify, settings, source, screen)


def _no_progress(what: str, done: int, total: int) -> None:
    """Show nothing: three rows take no time."""


def _tell(result: MigrationResult, screen: Screen) -> None:
    tally = result.tally
    for name, counts in (("before", tally.risks_before), ("after ", tally.risks_after)):
        told = ", ".join(f"{count} {risk}" for risk, count in sorted(counts.items()))
        screen.line(f"  risk {name}: {told}")
    for sentence in tally.sentences():
        screen.line(f"  {sentence}")
    screen.note("history keeps the status that was recorded; may_cut is false for all of it")


def _verify(settings: Settings, source: LegacySource, screen: Screen) -> None:
    differences = list(
        verify_migration(source, settings.data_dir, backup_dir=None, progress=_no_progress)
    )
    screen.line(f"  {len(source.rows)} rows compared, {len(differences)} differences", "green")
    if differences:
        message = f"{differences[0].run_id} is not what the older store makes of it."
        raise IntegrityError(message)


def _rows() -> list[dict[str, Any]]:
    """Return rows as v1 wrote them: the verdict deep in the evaluation, where v1 missed it."""
    return [
        _row("run_v1_green", "OK", {"risk_level": "GREEN", "score": 94.0}),
        _row(
            "run_v1_unknown",
            "BLOCKED",
            {"risk_level": "UNKNOWN", "block_reason": "Unsupported mode: unknown"},
        ),
        _row("run_v1_unevaluated", "OK", {}),
    ]


def _row(run_id: str, status: str, safety: dict[str, Any]) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "created_at_utc": "2025-11-03T09:12:44.501200+00:00",
        "event_type": "approval",
        "status": status,
        "workflow_mode": "router",
        "tool_id": "router:endmill_6mm",
        "feasibility": {"mode": "router", "safety": safety},
        "request_hash": "0" * 64,
    }
