"""An audit that cannot be requested makes its worker not ready after some tries."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from pipeline.audit.worker import schedule as audit_scheduling
from pipeline.audit.worker.schedule import AuditScheduler
from pipeline.consumers.engine.readiness import PUT_OFF_LIMIT, Standing
from pipeline.disk.stored_files import StoredFiles
from pipeline.errors import BrokerError
from pipeline.settings import Settings


async def test_an_audit_that_cannot_be_asked_for_is_a_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    is_away = True

    async def publish(*_: Any) -> None:
        if is_away:
            message = "The broker refused."
            raise BrokerError(message)

    monkeypatch.setattr(audit_scheduling, "publish_audit", publish)
    standing = Standing("audits")
    settings = Settings(data_dir=tmp_path, audit_hourly=True)
    now = datetime(2026, 2, 1, 10, 0, tzinfo=UTC)
    scheduler = AuditScheduler(
        settings, StoredFiles(tmp_path), cast("Any", None), lambda: now, standing
    )
    for _ in range(PUT_OFF_LIMIT):
        await scheduler.ask()
        assert standing.reasons == ()
    await scheduler.ask()
    assert standing.reasons[0].endswith("The broker refused.")
    is_away = False
    await scheduler.ask()
    assert standing.reasons == ()
