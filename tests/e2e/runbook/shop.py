"""What goes on in a shop before something breaks, without the commands that are tried."""

import json
from pathlib import Path
from typing import Any

from pipeline.app.persist import persist_worker
from pipeline.settings import Settings
from tests.builders import run_request
from tests.e2e.kafka_reading import Sending, produce, sending, wait_until_consumed
from tests.e2e.runbook import wrong_versions
from tests.e2e.runbook.drill import Drill
from tests.e2e.worker_processes import REPOSITORY


def runs(count: int, start: int = 0) -> list[Sending]:
    return [sending(run_request(run_id=f"run_{n}")) for n in range(start, start + count)]


async def consume(settings: Settings, sendings: list[Sending]) -> None:
    """Publish records and let a worker store them, which then ends in order."""
    await produce(settings, sendings)
    async with persist_worker(settings):
        await wait_until_consumed(settings)


def write(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document), encoding="utf-8")


def change_a_byte(path: Path) -> bytes:
    """Change a file that nothing may change; return what is in it now."""
    path.chmod(0o600)
    path.write_bytes(path.read_bytes().replace(b"GREEN", b"GREEM", 1))
    path.chmod(0o444)
    return path.read_bytes()


def deploy(drill: Drill, wrong: str, **names: str) -> None:
    """Put a version at /opt/rmos, which all services run; `wrong` is what it does wrongly."""
    wrong_versions.install(drill.folder / "opt", wrong, **names)
    drill.words["/opt/"] = f"{drill.folder}/opt/"
    drill.units.environment["PYTHONPATH"] = f"{drill.folder}/opt/rmos:{REPOSITORY}"
