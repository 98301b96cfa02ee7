"""The topic is the source: consumed again from its start, it gives the same store."""

from pathlib import Path

import pytest

from pipeline.app.persist import persist_worker
from pipeline.broker.local.broker import LocalBroker
from pipeline.settings import Settings
from tests.builders import attachment, incomplete_request, red_request, run_request
from tests.e2e.kafka_reading import Sending, commit, produce, sending, wait_until_consumed
from tests.e2e.prepared_store import prepare_store
from tests.e2e.store_audit import audit_store, store_files

pytestmark = pytest.mark.e2e


def records() -> list[Sending]:
    runs = [run_request(run_id=f"run_{number}") for number in range(300)]
    return [
        *map(sending, runs),
        *(sending(red_request(run_id=f"run_red_{number}")) for number in range(20)),
        *(sending(incomplete_request(run_id=f"run_bad_{number}")) for number in range(20)),
        *(
            sending(
                run_request(
                    run_id=f"run_blob_{number}",
                    attachments=[attachment(bytes([number]) * 5000)],
                    outputs={"gcode_text": "G1 X1\n" * (40_000 + number)},
                )
            )
            for number in range(5)
        ),
        *(sending(each | {"mode": "other"}) for each in runs[:20]),
        *map(sending, runs[20:50]),
        *(Sending(f"bad_{number}".encode(), b"no json") for number in range(20)),
    ]


def modes(root: Path) -> dict[str, int]:
    return {str(path.relative_to(root)): path.stat().st_mode for path in root.glob("*/**/*")}


@pytest.mark.parametrize("batch_records", [7, 20_000])
async def test_an_empty_store_that_reads_the_topic_again_becomes_the_same_store(
    store_settings: Settings, broker: LocalBroker, tmp_path: Path, batch_records: int
) -> None:
    settings = store_settings
    await produce(settings, records())
    async with persist_worker(settings):
        await wait_until_consumed(settings)
    first = await audit_store(settings)
    first.assert_whole()

    # Cut into other batches, by a group that begins anew.
    again = settings.model_copy(
        update={"data_dir": tmp_path / "again", "batch_records": batch_records}
    )
    prepare_store(again, broker.cluster_id)
    await commit(settings, dict.fromkeys(range(12), 0))
    async with persist_worker(again):
        await wait_until_consumed(again)
    second = await audit_store(again)
    # Events of both are in one topic: each offset's are equal, or they would be doubled.
    second.assert_whole()
    assert {len(each) for each in second.events.values()} == {2}
    assert {len(each) for each in second.letters.values()} == {2}
    assert store_files(again.data_dir) == first.files
    assert modes(again.data_dir) == modes(settings.data_dir)
    assert {run_id: tuple(row) for run_id, row in second.rows.items()} == {
        run_id: tuple(row) for run_id, row in first.rows.items()
    }
