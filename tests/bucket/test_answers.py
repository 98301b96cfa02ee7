"""What each answer of a bucket means: the bytes that are there decide, and silence nothing."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from pipeline.bucket.objects import ATTEMPTS, Objects
from pipeline.core.store.files import Creation, NewFile
from pipeline.core.store.log_store import CHECKPOINT_FILE, Head
from pipeline.errors import LogMovedError, StoreAwayError
from pipeline.ledger.writer import Ledger
from tests.bucket.buckets import IMPATIENT, contents_of, files_and_logs, opened
from tests.bucket.faulty_proxy import FAULTS, Choose, Proxy, one_in
from tests.ledger.ledgers import LOG, OTHER_LOG, SIGNER, STORE_ID, leaves
from tests.ledger.memory_logs import MemoryLogs
from tests.storage.memory_files import MemoryFiles

STORED = [fault for fault in FAULTS if "after" in fault]
LOST = "silence after it was stored"


@pytest.fixture
def objects(proxy: Proxy, request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    del proxy
    return opened(request, f"s3://shop/{tmp_path.name}")


@pytest.fixture
def impatient(proxy: Proxy, request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    """Give the same objects, to whom silence is soon a fault."""
    del proxy
    return opened(request, f"s3://shop/{tmp_path.name}", IMPATIENT)


def first(method: str, fault: str) -> Choose:
    """Return what lets the first request by a method meet a fault."""
    left = [fault]
    return lambda asked, _: left.pop() if asked == method and left else None


@pytest.mark.parametrize("fault", FAULTS)
def test_of_a_create_that_failed_what_is_there_decides(
    objects: Objects, impatient: Objects, proxy: Proxy, fault: str
) -> None:
    files, _ = files_and_logs(objects)
    proxy.choose = first("PUT", fault)
    new = [NewFile("runs/a", b"1")]
    if fault == LOST:
        hasty, _ = files_and_logs(impatient)
        with pytest.raises(StoreAwayError, match="does not answer"), hasty.faults():
            hasty.create(new)
        assert files.create(new) == {"runs/a": Creation.SAME}
    else:
        was_stored = fault in STORED
        expected = Creation.SAME if was_stored else Creation.CREATED
        assert files.create(new) == {"runs/a": expected}
    assert proxy.faults == {fault: 1}
    assert files.read("runs/a", 9) == b"1"


def lose_swap(impatient: Objects, head: Head, note: bytes) -> None:
    """Swap a log's checkpoint, whose answer is silence."""
    _, logs = files_and_logs(impatient)
    with (
        logs.locked([LOG.path]) as locked,
        pytest.raises(StoreAwayError, match="does not answer"),
        locked.faults(),
    ):
        locked.swap({LOG.path: (head, note)})


@pytest.mark.parametrize("fault", FAULTS)
def test_of_a_swap_that_failed_what_is_there_decides(
    objects: Objects, impatient: Objects, proxy: Proxy, fault: str
) -> None:
    files, logs = files_and_logs(objects)
    files.create([NewFile(f"{LOG.path}/{CHECKPOINT_FILE}", b"first")])
    head = logs.heads([LOG.path])[LOG.path]
    proxy.choose = first("PUT", fault)
    if fault == LOST:
        lose_swap(impatient, head, b"second")
    with logs.locked([LOG.path]) as locked:
        # Again where the answer was lost: it is ours.
        swapped = locked.swap({LOG.path: (head, b"second")})
    assert proxy.faults == {fault: 1}
    assert logs.heads([LOG.path]) == swapped
    assert swapped[LOG.path].note == b"second"


def test_a_lost_swap_over_which_another_went_on_is_not_ours(
    objects: Objects, impatient: Objects, proxy: Proxy
) -> None:
    files, logs = files_and_logs(objects)
    files.create([NewFile(f"{LOG.path}/{CHECKPOINT_FILE}", b"first")])
    head = logs.heads([LOG.path])[LOG.path]
    proxy.choose = first("PUT", LOST)
    lose_swap(impatient, head, b"second")
    with logs.locked([LOG.path]) as locked:
        locked.swap({LOG.path: (locked.heads([LOG.path])[LOG.path], b"third")})
        with pytest.raises(LogMovedError):
            locked.swap({LOG.path: (head, b"second")})
    assert logs.heads([LOG.path])[LOG.path].note == b"third"


@pytest.mark.parametrize("work", ["create", "swap"])
def test_what_is_refused_without_end_is_given_up(objects: Objects, proxy: Proxy, work: str) -> None:
    files, logs = files_and_logs(objects)
    files.create([NewFile(f"{LOG.path}/{CHECKPOINT_FILE}", b"first")])
    heads = logs.heads([LOG.path])
    before = proxy.requests
    proxy.choose = lambda method, _: "409" if method == "PUT" else None

    def ask() -> None:
        if work == "create":
            files.create([NewFile("runs/a", b"1")])
        else:
            with logs.locked([LOG.path]) as locked:
                locked.swap({LOG.path: (heads[LOG.path], b"second")})

    with pytest.raises(StoreAwayError, match="too many ask at once"):
        ask()
    asked = proxy.requests - before
    assert asked >= 2 * ATTEMPTS
    assert logs.heads([LOG.path]) == heads


def again(faults: Callable[[], AbstractContextManager[None]], work: Callable[[], object]) -> int:
    """Do some work until it is done, as a worker does; return how often it was put off."""
    put_off = 0
    while True:
        try:
            with faults():
                work()
        except StoreAwayError:
            put_off += 1
        else:
            return put_off


@pytest.mark.slow  # silence takes its time, and calls off what is in flight beside it
@pytest.mark.parametrize("seed", [1, 3])
def test_nothing_is_lost_doubled_or_torn_in_a_storm(
    impatient: Objects, proxy: Proxy, seed: int
) -> None:
    opened = files_and_logs(impatient)
    files, logs = opened
    new = [NewFile(f"runs/{number}", b"%d" % number) for number in range(30)]
    proxy.choose = one_in(5, seed)
    writer = Ledger(*opened, STORE_ID, [SIGNER])
    for end in range(10, 31, 10):
        again(files.faults, lambda end=end: files.create(new[end - 10 : end]))  # type: ignore[misc]
        batch = {LOG: leaves(0, 14 * end), OTHER_LOG: leaves(0, end, OTHER_LOG)}
        again(logs.faults, lambda batch=batch: writer.append_all(batch))  # type: ignore[misc]
    assert sum(proxy.faults.values()) >= 5
    proxy.choose = lambda *_: None
    # The start of the next process removes what the storm has kept from being removed.
    after = Ledger(*opened, STORE_ID, [SIGNER])
    after.opened([LOG, OTHER_LOG])
    after.sweep()
    after.append_all({LOG: leaves(0, 421), OTHER_LOG: leaves(0, 31, OTHER_LOG)})
    logs.close()
    calm = MemoryFiles()
    calm.create(new)
    whole = Ledger(calm, MemoryLogs(calm), STORE_ID, [SIGNER])
    whole.append_all({LOG: leaves(0, 421), OTHER_LOG: leaves(0, 31, OTHER_LOG)})
    assert contents_of(impatient) == calm.contents
