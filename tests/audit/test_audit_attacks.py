"""What an audit says to each attack, and who has to hold what for it to be found.

| attack | by whom | what finds it |
|---|---|---|
| a file edited, deleted, added | who can write the disk | the leaves |
| a tile or a bundle changed, deleted | who can write the disk | the signed root |
| a record altered, deleted, inserted, swapped, and all signed anew | who has the key too | a \
checkpoint trusted by somebody else |
| the tail cut below a trusted checkpoint | the same | the trusted checkpoint |
| the tail cut above it | the same | the broker's offsets, or a newer checkpoint: not this one |
| a record dated back | a producer | its own leaf: the broker's time |
| false content, logged in time | a producer | nothing here |
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.audit.checks.logs import BrokerView
from pipeline.ledger.log_id import LogId
from pipeline.ledger.tlog.checkpoints import Checkpoint
from tests.audit.audited import LOG, Audited, add_runs, audit, run, run_record
from tests.ledger.ledgers import reader
from tests.storage.stores import TOPIC, make_store

RUN_LOG = LogId(1, TOPIC, 0)
HELD = 6
"""How many leaves the checkpoint covers that an auditor keeps."""

Requests = list[dict[str, Any]]
HONEST: Requests = [run(number) for number in range(9)]


def made(root: Path, requests: Requests) -> Path:
    """Make a store of these requests with the key of the store: honest or not, it fits itself."""
    root.mkdir()
    make_store(root)
    add_runs(root, [run_record(request, n) for n, request in enumerate(requests)])
    return root


@pytest.fixture
def trusted(tmp_path: Path) -> Checkpoint:
    """Return the checkpoint that an auditor took home when there were six leaves."""
    return reader(made(tmp_path / "then", HONEST[:HELD]), RUN_LOG).checkpoint


def told(found: Audited) -> list[tuple[str, str]]:
    return [(finding.code, finding.path) for finding in found.findings]


def test_a_store_that_only_grew_is_anchored(tmp_path: Path, trusted: Checkpoint) -> None:
    found = audit(made(tmp_path / "now", HONEST), trusted=[trusted])
    assert told(found) == []
    assert (found.results["integrity"], found.results["anchored"]) == ("ok", "ok")
    assert found.report["counts"]["anchored_leaves"] == HELD


def _altered(requests: Requests) -> Requests:
    return [*requests[:3], requests[3] | {"notes": "It was within the limits."}, *requests[4:]]


def _deleted(requests: Requests) -> Requests:
    return [*requests[:3], *requests[4:]]


def _inserted(requests: Requests) -> Requests:
    return [*requests[:3], run("slipped_in"), *requests[3:]]


def _swapped(requests: Requests) -> Requests:
    return [*requests[:3], requests[4], requests[3], *requests[5:]]


@pytest.mark.parametrize("attack", [_altered, _deleted, _inserted, _swapped])
def test_a_store_rebuilt_and_signed_with_the_stolen_key_is_found_from_a_trusted_checkpoint(
    tmp_path: Path, trusted: Checkpoint, attack: Callable[[Requests], Requests]
) -> None:
    forged = made(tmp_path / "now", attack(HONEST))
    # By itself it is whole: no look at the store alone can tell.
    assert told(audit(forged)) == []
    found = audit(forged, trusted=[trusted])
    assert told(found) == [("ANCHOR_BROKEN", LOG)]
    (finding,) = found.findings
    assert finding.expected == (
        f"a log {trusted.origin} that goes on from 6 leaves held by somebody"
    )
    assert finding.found.startswith(f"other root: expected {trusted.root.hex()} over the first 6")
    assert finding.found.endswith("what was held is changed, missing or moved")
    assert (found.results["integrity"], found.results["anchored"]) == ("ok", "failed")


def test_a_tail_cut_below_the_trusted_checkpoint_is_found_from_it(
    tmp_path: Path, trusted: Checkpoint
) -> None:
    found = audit(made(tmp_path / "now", HONEST[: HELD - 1]), trusted=[trusted])
    assert told(found) == [("ANCHOR_BROKEN", LOG)]
    assert found.findings[0].found == (
        "smaller than held: expected at least 6 leaves, found 5; its tail was cut off"
    )


def test_a_tail_cut_above_the_trusted_checkpoint_is_found_by_the_broker_alone(
    tmp_path: Path, trusted: Checkpoint
) -> None:
    """Why checkpoints are handed out often: what lies between two of them is exposed."""
    cut = made(tmp_path / "now", HONEST[: HELD + 1])
    assert told(audit(cut, trusted=[trusted])) == []
    broker = BrokerView({RUN_LOG: 9}, lambda log, start, end: range(start, end))
    found = audit(cut, trusted=[trusted], broker=broker)
    assert told(found) == [("OFFSET_WITHOUT_LEAF", LOG)]
    assert found.findings[0].found == "none of offsets 7 to 8, which the broker shows"
    assert (found.results["anchored"], found.results["completeness"]) == ("ok", "failed")
    newer = reader(made(tmp_path / "later", HONEST), RUN_LOG).checkpoint
    (finding,) = audit(cut, trusted=[trusted, newer]).findings
    assert finding.found.startswith("smaller than held: expected at least 9 leaves, found 7")


def test_files_cut_off_with_their_leaves_leave_those_behind_that_were_forgotten(
    tmp_path: Path, trusted: Checkpoint
) -> None:
    whole = made(tmp_path / "now", HONEST)
    cut = made(tmp_path / "cut", HONEST[: HELD + 1])
    (cut / "runs/2025-12-18/run_8.json").hardlink_to(whole / "runs/2025-12-18/run_8.json")
    found = audit(cut, trusted=[trusted])
    assert told(found) == [("FILE_UNEXPLAINED", "runs/2025-12-18/run_8.json")]
    assert found.findings[0].expected == "no file: no leaf tells of it"


def test_a_file_of_one_run_in_place_of_another_is_found(tmp_path: Path) -> None:
    store = made(tmp_path / "now", HONEST)
    folder = store / "runs/2025-12-18"
    (folder / "run_1.json").rename(folder / "kept")
    (folder / "run_2.json").rename(folder / "run_1.json")
    (folder / "kept").rename(folder / "run_2.json")
    assert told(audit(store)) == [
        ("BYTES_DIFFER", "runs/2025-12-18/run_1.json"),
        ("BYTES_DIFFER", "runs/2025-12-18/run_2.json"),
    ]


def test_a_record_dated_back_is_accepted_and_called_late(
    tmp_path: Path, trusted: Checkpoint
) -> None:
    store = made(tmp_path / "now", HONEST)
    days = 40 * 86_400
    add_runs(store, [run_record(run("of_last_month"), 9, seconds=days)])
    found = audit(store, trusted=[trusted])
    assert told(found) == [("LATE", "runs/2025-12-18/run_of_last_month.json")]
    assert found.findings[0].found == (
        "one dated 2025-12-18T14:03:22Z that came 3,456,000 s after it"
    )
    assert found.findings[0].expected == "a record that came within 86,400 s of its time"
    assert {name for name, result in found.results.items() if result == "failed"} == {"late"}


def test_a_producer_that_lies_in_time_is_not_found(tmp_path: Path, trusted: Checkpoint) -> None:
    lie = run(8, feasibility={"risk_level": "GREEN", "measured_by": "nobody"})
    found = audit(made(tmp_path / "now", [*HONEST[:8], lie]), trusted=[trusted])
    assert told(found) == []
