"""What commands that need a broker leave in a store is no unexpected file for an audit of it."""

from pathlib import Path

import pytest

from pipeline.app.persist import persist_worker
from pipeline.disk.store_identity import read_store
from pipeline.settings import Settings
from pipeline.storage.ledger_key import verifier_keys
from tests.audit.audited import audit
from tests.builders import incomplete_request, red_request, run_request
from tests.e2e.commands import rmos
from tests.e2e.kafka_reading import Sending, produce, sending, wait_until_consumed
from tests.e2e.test_v1_mode import wait_until_stored

pytestmark = [pytest.mark.e2e, pytest.mark.every_topic]

REQUESTS = [
    sending(run_request(run_id="run_0"), partition=0),
    sending(red_request(run_id="run_red"), partition=0),
    sending(incomplete_request(run_id="run_bad"), partition=0),
    Sending(b"run_x", b"no json", partition=0),
]
COMMANDS = [
    "topics apply",
    "topics check",
    "peek persist",
    "offsets show",
    "offsets reset persist --earliest --yes",
    "offsets undo persist --yes",
    "replay plan",
    "replay verify",
    "replay restore",
    "dead-letters list",
    "dead-letters export --to letters",
    "dead-letters redrive --all",
    "index rebuild",
    "ledger init",
    "store new-epoch",
]


def unexpected(settings: Settings) -> list[str]:
    keys = verifier_keys(settings, read_store(settings.data_dir))
    found = audit(settings.data_dir, keys=keys)
    # The requests are old.
    return [f"{each.code} {each.path}" for each in found.findings if each.code != "LATE"]


async def test_no_command_leaves_a_file_that_an_audit_names(
    store_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = store_settings
    monkeypatch.chdir(tmp_path)
    await produce(settings, REQUESTS)
    async with persist_worker(settings):
        await wait_until_consumed(settings)
    # A file of a run is gone, so that a restore has something to make.
    (settings.data_dir / "runs/2025-12-18/run_0.json").unlink()
    for command in COMMANDS:
        ended = await rmos(settings, *command.split())
        assert ended.status in {0, 3, 4, 5}, (command, ended)
    assert unexpected(settings) == []


async def test_v1_mode_beside_a_store_leaves_nothing_in_it(
    store_settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "v1" / "runs.json"
    path.parent.mkdir()
    path.write_text("{}")
    settings = store_settings.model_copy(
        update={"runs_v2_enabled": False, "run_store_path": path, "judge_in_child_process": False}
    )
    await produce(settings, REQUESTS)
    async with persist_worker(settings):
        await wait_until_stored(settings, len(REQUESTS))
    assert unexpected(settings) == []
