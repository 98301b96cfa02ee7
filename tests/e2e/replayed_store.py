"""A store made by workers out of requests as they come in real life, and copies of it to damage."""

import hashlib
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.app.advise import advise_worker
from pipeline.app.persist import persist_worker
from pipeline.broker.admin.groups import committed_offsets
from pipeline.broker.admin.topics import partition_offsets
from pipeline.broker.local.broker import LocalBroker
from pipeline.core.store.identity import StoreIdentity
from pipeline.disk.store_identity import read_store
from pipeline.settings import Settings
from tests.builders import (
    advisory_request,
    attachment,
    incomplete_request,
    record,
    red_request,
    rosette_request,
    router_request,
    run_request,
    sha256,
)
from tests.e2e.kafka_reading import (
    Place,
    Sending,
    new_settings,
    produce,
    sending,
    topics_and_store,
    wait_until,
)
from tests.e2e.migrations import migrate
from tests.e2e.prepared_store import prepare_store
from tests.legacy_rows import unknown_row, v1_file, v1_row

RUNS = 60
LEGACY_ROWS = 2
NEVER = 3600.0


def run_requests() -> list[Sending]:
    runs = [run_request(run_id=f"run_{number}") for number in range(RUNS)]
    return [
        *map(sending, runs[:40]),
        *(sending(red_request(run_id=f"run_red_{number}")) for number in range(8)),
        *(sending(incomplete_request(run_id=f"run_bad_{number}")) for number in range(8)),
        sending(router_request()),
        sending(rosette_request()),
        sending(run_request(run_id="run_error", status="ERROR", error={"message": "no tool"})),
        *(
            sending(
                run_request(
                    run_id=f"run_blob_{number}",
                    attachments=[attachment(b"blob %d" % number)],
                    outputs={"gcode_text": "G1 X1\n" * (40_000 + number)},
                )
            )
            for number in range(4)
        ),
        *(sending(each | {"notes": "changed"}) for each in runs[:10]),
        *map(sending, runs[5:20]),
        *(Sending(f"bad_{number}".encode(), b"no json") for number in range(8)),
        Sending(b"run_0", None),
        Sending(b"run_other", record(runs[0])[1]),
        *map(sending, runs[40:]),
    ]


def advisory_requests() -> list[Sending]:
    def asked(**changes: Any) -> Sending:
        return Sending(*record(advisory_request(**changes)))

    return [
        *(asked(run_id=f"run_{number}") for number in range(20)),
        *(asked(run_id=f"run_{number}", content_text="another") for number in range(5)),
        *(asked(run_id=f"run_{number}", title="the same") for number in range(5, 8)),
        asked(run_id="run_1", advisory_id="adv_json", content_text=None, content_json={"a": [1]}),
        asked(run_id="run_never"),
        asked(run_id="run_1", advisory_id="no content", content_text=""),
        Sending(b"run_1", b"{}"),
    ]


@dataclass(frozen=True, slots=True)
class Made:
    """What the workers made, which nobody may change.

    Attributes:
        settings: Of the store.
        identity: Likewise.
        digest: One hash over all that restoring must give.
        runs: Where the run requests are, in the order of `run_requests`.
        advisories: Likewise.
    """

    settings: Settings
    identity: StoreIdentity
    digest: str
    runs: list[Place]
    advisories: list[Place]

    @property
    def records(self) -> int:
        return len(self.runs) + len(self.advisories) + LEGACY_ROWS

    def copied(self, folder: Path) -> Settings:
        """Return settings of a copy of the store."""
        shutil.copytree(self.settings.data_dir, folder)
        return self.settings.model_copy(update={"data_dir": folder})

    def emptied(self, folder: Path) -> Settings:
        """Return settings of an empty store that has the identity of this one."""
        settings = self.settings.model_copy(update={"data_dir": folder})
        prepare_store(
            settings,
            self.identity.cluster_id,
            store_id=self.identity.store_id,
            epoch=self.identity.epoch,
        )
        return settings


@asynccontextmanager
async def made_store(broker: LocalBroker, folder: Path) -> AsyncIterator[Made]:
    """Publish everything, let workers consume it, stop them."""
    wanted = new_settings(broker, folder, advisory_wait_seconds=NEVER)
    async with topics_and_store(broker, wanted) as settings:
        topic = settings.topics.advisory_requests
        early = Sending(*record(advisory_request(run_id="run_55", advisory_id="early")))
        async with advise_worker(settings):
            advisories = await produce(settings, [early], topic=topic)
            await until_consumed(settings)
            async with persist_worker(settings):
                runs = await produce(settings, run_requests())
                await until_consumed(settings)
            advisories += await produce(settings, advisory_requests(), topic=topic)
            await until_consumed(settings)
        older = folder.with_name("older.json")
        older.write_bytes(v1_file(v1_row(), unknown_row()))
        await migrate(settings, older)
        # Started again, it looks for claims whose run has come.
        async with advise_worker(settings):
            link = folder / "runs/2025-12-18/run_55_advisory_early.json"
            await wait_until(link.exists, "the early advisory is linked")
        identity = read_store(folder)
        yield Made(settings, identity, digest_of(folder), runs, advisories)


async def until_consumed(settings: Settings) -> None:
    topics = settings.topics

    async def is_consumed() -> bool:
        for topic, group in (
            (topics.run_requests, topics.persist_group),
            (topics.advisory_requests, topics.advise_group),
        ):
            committed = await committed_offsets(settings, group, [topic])
            ends = await partition_offsets(settings, [topic])
            if any(committed.get(place, 0) < each.end for place, each in ends.items()):
                return False
        return True

    await wait_until(is_consumed, "all is consumed")


def tree_of(root: Path) -> dict[str, tuple[int, bytes]]:
    """Return mode and bytes of all that restoring must give."""
    return {
        path.relative_to(root).as_posix(): (path.stat().st_mode, path.read_bytes())
        for area in ("runs", "attachments", "quarantine", "ledger")
        for path in sorted((root / area).rglob("*"))
        if path.is_file() and path.name != "lock"
    }


def digest_of(root: Path) -> str:
    """Return one hash over all of it."""
    digest = hashlib.sha256()
    for path, (mode, content) in tree_of(root).items():
        digest.update(json.dumps([path, mode, sha256(content)]).encode())
    return digest.hexdigest()
