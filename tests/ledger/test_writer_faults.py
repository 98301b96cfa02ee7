"""A fault or a kill at every system call of an append: no checkpoint over what is not there.

After each one the ledger is opened again and given the same leaves, as a restarted worker
does. Then its files must be those of a ledger that never failed.
"""

import errno
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import StoreError
from pipeline.ledger.log_id import LogId
from pipeline.ledger.writer import Ledger
from tests.ledger.ledgers import (
    CALL_NAMES,
    LOG,
    TOPIC,
    WRITERS,
    WatchedLogCalls,
    check_whole,
    in_child,
    leaves,
    ledger,
    on_disk,
)

NEW_LOG = LogId(1, TOPIC, 7)
BEFORE = 250
AFTER = 300
BATCH = {LOG: leaves(BEFORE - 2, AFTER), NEW_LOG: leaves(0, 3, NEW_LOG)}
"""It compares two leaves, fills a tile, supersedes partial ones, and makes a log."""

_OF_BOTH = {
    "open_folder",
    "make_folder",
    "open_existing",
    "open_new",
    "write",
    "set_mode",
    "replace",
    "list_folder",
    "unlink",
    "remove_folder",
    "close",
}
ALL_CALLS = {
    "group commit": _OF_BOTH | {"open_unnamed", "mode_of", "link_unnamed", "syncfs"},
    "fallback": _OF_BOTH | {"fsync", "link_named"},
}


@pytest.fixture(params=WRITERS)
def writer(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def new_root(tmp_path: Path) -> Callable[[], Path]:
    """Give folders with a log each, copies of one."""
    template = tmp_path / "template"
    template.mkdir()
    ledger(template).append_all({LOG: leaves(0, BEFORE)})
    count = 0

    def make() -> Path:
        nonlocal count
        count += 1
        return shutil.copytree(template, tmp_path / f"ledger_{count}")

    return make


@pytest.fixture
def expected(new_root: Callable[[], Path]) -> dict[str, bytes | None]:
    root = new_root()
    ledger(root).append_all(BATCH)
    return on_disk(root)


def append_in_parts(restarted: Ledger) -> None:
    """Append the same leaves in other batches than before the fault."""
    for start, end in ((BEFORE - 2, 255), (255, 256), (256, AFTER)):
        restarted.append_all({LOG: leaves(start, end)})
    restarted.append_all({NEW_LOG: leaves(0, 3, NEW_LOG)})


def check_after_restart(
    root: Path, expected: dict[str, bytes | None], nth: int, fault: str
) -> None:
    """Check what is left, then what a restart makes of it, in the same batches or in others."""
    assert check_whole(root).size in {BEFORE, AFTER}, fault
    if (root / NEW_LOG.path / "checkpoint").exists():
        check_whole(root, NEW_LOG)
    if nth % 2:
        append_in_parts(ledger(root))
    # After parts once more, for what the failed batch had left beyond the last one.
    ledger(root).append_all(BATCH)
    assert on_disk(root) == expected, fault
    shutil.rmtree(root)


class Fault:
    """Fails the `nth` call; counts what is called afterwards."""

    def __init__(self, nth: int, number: int) -> None:
        self.nth = nth
        self.number = number
        self.seen = 0
        self.called_afterwards: list[str] = []
        self.failed = ""

    def __call__(self, name: str, arguments: tuple[Any, ...]) -> None:
        if self.failed:
            self.called_afterwards.append(name)
            return
        self.seen += 1
        if self.seen > self.nth:
            self.failed = name
            raise OSError(self.number, os.strerror(self.number))


def calls_of_batch(root: Path, calls: WatchedLogCalls, moment: str) -> list[str]:
    made: list[str] = []
    opened = ledger(root, calls)
    setattr(calls, moment, lambda name, arguments: made.append(name))
    opened.append_all(BATCH)
    return made


def test_the_batch_makes_every_call(writer: str, new_root: Callable[[], Path]) -> None:
    assert set(calls_of_batch(new_root(), WRITERS[writer](), "before")) == ALL_CALLS[writer]
    assert set().union(*ALL_CALLS.values()) == set(CALL_NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "after"])
def test_after_a_fault_of_any_call_a_restart_does_it_all(
    expected: dict[str, bytes | None],
    writer: str,
    new_root: Callable[[], Path],
    moment: str,
) -> None:
    """Fail the n-th call before the kernel does it, or report a failure of what it did."""
    total = len(calls_of_batch(new_root(), WRITERS[writer](), moment))
    for nth in range(total):
        root = new_root()
        calls = WRITERS[writer]()
        fault = Fault(nth, (errno.EIO, errno.ENOSPC)[nth // 2 % 2])
        opened = ledger(root, calls)
        setattr(calls, moment, fault)
        with pytest.raises(StoreError, match="nothing was acknowledged"):
            opened.append_all(BATCH)
        # What is open is closed, a temporary name removed; nothing else, and no second try.
        assert set(fault.called_afterwards) <= {"close", "unlink"}, (nth, fault.failed)
        check_after_restart(root, expected, nth, f"{moment} call {nth}, {fault.failed}")


def test_after_a_fault_the_same_process_must_not_go_on_from_what_it_hoped_for(
    expected: dict[str, bytes | None], writer: str, new_root: Callable[[], Path]
) -> None:
    """A worker stops; should one go on, it reads the disk again."""
    total = len(calls_of_batch(new_root(), WRITERS[writer](), "before"))
    for nth in range(total):
        root = new_root()
        calls = WRITERS[writer]()
        opened = ledger(root, calls)
        calls.before = Fault(nth, errno.EIO)
        with pytest.raises(StoreError):
            opened.append_all(BATCH)
        calls.before = None
        opened.append_all(BATCH)
        ledger(root).append_all(BATCH)
        assert on_disk(root) == expected, nth
        shutil.rmtree(root)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_at_any_call_a_restart_does_it_all(
    expected: dict[str, bytes | None], writer: str, new_root: Callable[[], Path], moment: str
) -> None:
    total = len(calls_of_batch(new_root(), WRITERS[writer](), moment))
    for nth in range(total):
        root = new_root()

        def work(root: Path = root, nth: int = nth) -> None:
            calls = WRITERS[writer]()
            opened = ledger(root, calls)
            made = 0

            def kill(name: str, arguments: tuple[Any, ...]) -> None:
                nonlocal made
                if made == nth:
                    os.kill(os.getpid(), signal.SIGKILL)
                made += 1

            setattr(calls, moment, kill)
            opened.append_all(BATCH)

        status = in_child(work)
        assert os.WIFSIGNALED(status), nth
        assert os.WTERMSIG(status) == signal.SIGKILL
        for left in root.glob(".*.tmp"):
            left.unlink()  # What the store does when it is opened.
        check_after_restart(root, expected, nth, f"killed {moment} call {nth}")


def test_whatever_was_acknowledged_has_a_leaf(new_root: Callable[[], Path], writer: str) -> None:
    """Kill at each call of a series of batches; what `append_all` returned for is there."""
    for nth in range(0, 400, 17):
        root = new_root()
        acknowledged = root / "acknowledged"

        def work(root: Path = root, nth: int = nth, acknowledged: Path = acknowledged) -> None:
            calls = WRITERS[writer]()
            opened = ledger(root, calls)
            made = 0

            def kill(name: str, arguments: tuple[Any, ...]) -> None:
                nonlocal made
                if made == nth:
                    os.kill(os.getpid(), signal.SIGKILL)
                made += 1

            calls.before = kill
            for end in range(BEFORE + 3, BEFORE + 40, 3):
                opened.append_all({LOG: leaves(end - 3, end)})
                acknowledged.write_text(str(end))

        in_child(work)
        promised = int(acknowledged.read_text()) if acknowledged.exists() else BEFORE
        assert check_whole(root).size in {promised, promised + 3}, nth
