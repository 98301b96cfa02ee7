"""An index that has lost rows follows the ledger of its store before it goes on."""

from pathlib import Path

from pipeline.core.store.log_store import CHECKPOINT_FILE
from pipeline.disk.durable_files import DurableFiles
from pipeline.disk.log_store import DiskLogs
from pipeline.ledger.writer import Ledger
from tests.builders import run_request
from tests.ledger.ledgers import SIGNER, STORE_ID
from tests.storage.stores import judged_record, kinds, opened


class CountedLogs(DiskLogs):
    """Logs that note what is read of them, unless they are locked."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads: list[str] = []

    def tile(self, log: str, tile: str) -> bytes | None:
        self.reads.append(tile)
        return super().tile(log, tile)


def test_a_gap_of_offsets_searches_no_log(tmp_path: Path) -> None:
    """As each mark of a producer's transaction makes one."""
    logs = CountedLogs(tmp_path)
    ledger = Ledger(DurableFiles(tmp_path), logs, STORE_ID, [SIGNER])
    with opened(tmp_path, ledger=ledger) as store:
        store.commit([judged_record(run_request(run_id=f"run_{n}"), n) for n in range(20)])
        for offset in (30, 40):
            logs.reads.clear()
            batch = [judged_record(run_request(run_id=f"run_{offset}"), offset)]
            assert kinds(store.commit(batch)) == ["persisted"]
            # To follow the log, and for the leaves of the batch.
            assert logs.reads == [CHECKPOINT_FILE] * 2
