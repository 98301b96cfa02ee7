"""The lock of the store: one at a time, in turn, and never left behind by the dead."""

import gc
import os
import signal
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from pipeline.disk import locks
from pipeline.disk.locks import exclusive_lock, shared_lock
from pipeline.errors import LockWaitEndedError
from tests.storage.stores import in_child, open_descriptors


def test_the_lock_file_is_made_and_stays(tmp_path: Path) -> None:
    with exclusive_lock(tmp_path / "lock"):
        assert (tmp_path / "lock").exists()
    assert (tmp_path / "lock").exists()


def test_the_lock_can_be_taken_again_and_again(tmp_path: Path) -> None:
    before = open_descriptors()
    for _ in range(3):
        with exclusive_lock(tmp_path / "lock"):
            pass
    assert open_descriptors() == before


def test_the_lock_is_let_go_when_the_block_raises(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="inside"), exclusive_lock(tmp_path / "lock"):
        raise ValueError("inside")
    with exclusive_lock(tmp_path / "lock"):
        pass


def test_threads_hold_the_lock_one_at_a_time(tmp_path: Path) -> None:
    inside = 0
    most = 0
    barrier = threading.Barrier(8)

    def work() -> None:
        nonlocal inside, most
        barrier.wait()
        for _ in range(50):
            with exclusive_lock(tmp_path / "lock"):
                inside += 1
                most = max(most, inside)
                os.sched_yield()
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_processes_hold_the_lock_one_at_a_time(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")

    def count() -> None:
        for _ in range(100):
            with exclusive_lock(tmp_path / "lock"):
                counter.write_text(str(int(counter.read_text()) + 1))

    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            try:
                count()
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert counter.read_text() == "400"


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    def die_inside() -> bytes:
        with exclusive_lock(tmp_path / "lock"):
            os.kill(os.getpid(), signal.SIGKILL)
        return b""

    status, _ = in_child(die_inside)
    assert os.WTERMSIG(status) == signal.SIGKILL
    with exclusive_lock(tmp_path / "lock"):
        pass


def test_a_folder_that_is_not_there_is_an_error_of_the_disk(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), exclusive_lock(tmp_path / "none" / "lock"):
        pass


def test_who_waits_logs_for_whom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(locks, "PATIENCE_SECONDS", 0.0)
    told = threading.Event()
    monkeypatch.setattr(locks._log, "filter", lambda record: told.set() or True)
    held = threading.Event()

    def hold() -> None:
        with exclusive_lock(tmp_path / "lock"):
            held.set()
            told.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    with shared_lock(tmp_path / "lock"):
        pass
    holder.join()
    (line,) = caplog.messages
    assert line.startswith(f"{tmp_path / 'lock'} is held by process {os.getpid()} (")


@pytest.mark.parametrize("take", [exclusive_lock, shared_lock])
def test_a_process_that_is_to_stop_waits_for_no_lock(
    tmp_path: Path, take: Callable[[Path], AbstractContextManager[None]]
) -> None:
    gc.collect()  # What an earlier test left to the collector would be closed in between.
    before = open_descriptors()
    try:
        with exclusive_lock(tmp_path / "lock"):
            locks.end_waits()
            with pytest.raises(LockWaitEndedError, match=f"process {os.getpid()}"):  # noqa: SIM117
                with take(tmp_path / "lock"):
                    pytest.fail("it is held twice")
        # What gave up takes its turn, and lets go at once.
        with exclusive_lock(tmp_path / "lock"):
            pass
        for thread in threading.enumerate():
            if thread.name == "lock":
                thread.join()
        assert open_descriptors() == before
    finally:
        locks.allow_waits()
