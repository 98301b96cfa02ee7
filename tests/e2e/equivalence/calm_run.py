"""What one calm worker makes of the records of a topic on a disk, by the store's own procedure."""

from contextlib import closing
from pathlib import Path
from typing import Any

from aiokafka import ConsumerRecord

from pipeline.core.record import RecordId, RecordSource
from pipeline.core.runs.event import run_event
from pipeline.core.runs.verdict import judge_run_record
from pipeline.settings import Settings
from pipeline.storage.batch_plan import JudgedRecord
from pipeline.storage.batch_store import RejectLimit
from pipeline.storage.checksums import store_root
from pipeline.storage.ledger_key import open_store_logs
from pipeline.storage.run_store import RunStore
from pipeline.storage.store import create, init_key, open_to_read, open_to_write
from tests.e2e.equivalence.test_hosts import contents, kept
from tests.e2e.kafka_reading import read_topic


async def check_as_on_a_disk(shared: Settings, folder: Path) -> None:
    """Check that a shared store is what a disk keeps of the same topic, and that all was told.

    The calm worker takes the records in the order of their partitions.
    """
    with closing(open_to_read(shared)) as many:
        root = store_root(open_store_logs(shared, many))
        identity, found = many.identity, (root, contents(many), kept(many))
    disk = shared.model_copy(
        update={"store_url": None, "index_url": None, "data_dir": folder / "calm"}
    )
    create(disk, cluster_id=identity.cluster_id, store_id=identity.store_id)
    init_key(disk)
    records = await read_topic(shared, shared.topics.run_requests)
    judged = list(map(_judged, records))
    limit = RejectLimit(shared.topics.persist_group, accepted_rejects=len(judged))
    store, ledger = open_to_write(disk)
    with closing(RunStore(store, ledger=ledger)) as batches:
        outcomes = batches.commit(judged, limit).outcomes
        root = store_root(open_store_logs(disk, store))
        calm = root, contents(store), kept(store)
    assert found == calm
    told = {each.value for each in await read_topic(shared, shared.topics.run_events)}
    assert told == {
        run_event(outcome, each.source) for outcome, each in zip(outcomes, judged, strict=True)
    }


def _judged(record: ConsumerRecord) -> JudgedRecord[Any]:
    place = RecordSource(1, RecordId(record.topic, record.partition, record.offset))
    verdict = judge_run_record(record.key, record.value)
    return JudgedRecord.of(place, verdict, record.value, record.timestamp)
