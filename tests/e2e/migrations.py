"""Migrations in this process, and `rmos migrate` in one of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core.progress import no_progress
from pipeline.legacy.check import Difference, verify_migration
from pipeline.legacy.migration import MigrationOptions, migrate_into_store
from pipeline.legacy.report import MigrationResult, RowResult
from pipeline.legacy.source import open_source
from pipeline.settings import Settings
from tests.e2e.commands import Ended, rmos_forked
from tests.e2e.worker_processes import RMOS, worker_environment


@dataclass(frozen=True, slots=True)
class Migrated:
    """What a migration told."""

    result: MigrationResult
    rows: dict[str, RowResult]

    @property
    def states(self) -> dict[str, str]:
        return {run_id: row.state for run_id, row in self.rows.items()}


async def migrate(
    settings: Settings, path: Path, *, attachments: Path | None = None, **options: Any
) -> Migrated:
    """Carry over the older store at `path`."""
    told: dict[str, RowResult] = {}
    result = await migrate_into_store(
        settings,
        open_source(path, attachments),
        MigrationOptions(**options),
        lambda row: told.update({row.run_id: row}),
        no_progress,
    )
    return Migrated(result, told)


def differences(
    settings: Settings, path: Path, *, attachments: Path | None = None
) -> list[Difference]:
    """Return what verifying finds."""
    source = open_source(path, attachments)
    return list(verify_migration(source, settings.data_dir, backup_dir=None, progress=no_progress))


def environment(settings: Settings) -> dict[str, str]:
    """Return the environment of `rmos` with these settings."""
    key = settings.ledger_key_file
    return worker_environment(settings, **({"RMOS_LEDGER_KEY_FILE": str(key)} if key else {}))


def rmos_migrate(settings: Settings, *words: str | Path) -> Ended:
    """Run `rmos migrate ... --json` to its end."""
    return rmos_forked(environment(settings), *command(*words)[1:])


def command(*words: str | Path) -> Sequence[str]:
    """Return the words of `rmos migrate ... --json`."""
    return [str(RMOS), "migrate", *map(str, words), "--json"]
