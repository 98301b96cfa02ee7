"""Every error that the program raises on purpose, in one flat list.

| error | consumer | HTTP | exit | whose fault |
|---|---|---|---|---|
| InputError | - | 422 | 2 | the caller's: a file or an option; nothing was sent or written |
| HashMismatchError | - | 422 | 2 | the caller's: the bytes are not those of their name |
| NotFoundError | - | 404 | 3 | nobody's: the thing asked for is not there |
| ArchivedError | - | 410 | 3 | nobody's: the file of the run is in a tar of its date |
| RefusedError | - | 409 | 4 | the request's: blocked, in conflict or rejected |
| RejectLimitError | stops | - | 4 | ours, most likely: more than half of the records fail |
| IntegrityError | - | 500 | 5 | somebody changed what was stored |
| StoreError | stops | 503 | 6 | the disk's or the operator's; nothing was acknowledged |
| StoreNotReadyError | stops | 503 | 6 | the operator's: no store, or one that does not fit |
| LockWaitEndedError | stops | 503 | 6 | nobody's: a signal came while it waited for a lock |
| LogMovedError | again, on a disk stops | 503 | 6 | nobody's: another process went on with a log |
| StoreAwayError | waits, again | 503 | 6 | the network's: what keeps a store does not answer |
| DiskFullError | stops | 507 | 6 | the disk's: no room for a blob; nothing of it is left |
| AddressTakenError | - | - | 6 | the operator's: another program listens there |
| ServiceError | - | - | 6 | the network's or the API's: no answer, or one that nobody knows |
| ExecutorError | stops | 503 | 6 | the machine's: no process or thread starts, or one died |
| BrokerError | waits, again | 503 | 6 | the broker's or the network's; nothing was committed |
| TopicsError | stops | 503 | 6 | the operator's: topics are missing or have other settings |
| UnsendableError | stops | - | 6 | the operator's: a topic never takes what must be published |
| ReceiptTimeoutError | - | 202 | 6 | nobody's: accepted by the broker, not judged in time |

A record that can never succeed is no error here: it gets a verdict
(`pipeline.core.runs.verdict.Rejected`) and a dead letter.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

NO_MEMORY = (
    "No memory is left for what is in hand; nothing of it was acknowledged. Give this process more "
    "(ulimit -v, MemoryMax of its unit), or set a smaller RMOS_BATCH_RECORDS, then start again."
)
"""What a MemoryError means for an operator."""

MORE_PROCESSES = (
    "give this process more memory (ulimit -v, MemoryMax of its unit) or more processes "
    "(ulimit -u, TasksMax), then start again."
)
"""What to do where a process or a thread cannot be started."""

NO_THREAD = f"No thread can be started; nothing was acknowledged: {MORE_PROCESSES}"


class RmosError(Exception):
    """Base of all of them; its text is one sentence: what, where, what to do."""

    exit_status = 1
    details: Mapping[str, Any]
    """What the HTTP API answers or answered besides."""

    def __init__(
        self,
        sentence: str,
        lines: Iterable[str] = (),
        *,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(sentence)
        self.lines = tuple(lines)
        """What the sentence announces where it ends in a colon: one line each."""
        self.details = dict(details or {})


class InputError(RmosError):
    """The caller gave a file, an option or a value that cannot be used. Nothing was done."""

    exit_status = 2


class HashMismatchError(InputError):
    """The bytes of a blob have another hash than it was said. Nothing was written."""


class NotFoundError(RmosError):
    """What was asked for does not exist."""

    exit_status = 3


class ArchivedError(RmosError):
    """The file of a run is archived: it is not here, and its record says in which tar it is."""

    exit_status = 3


class RefusedError(RmosError):
    """The request was understood and refused: blocked, in conflict or rejected."""

    exit_status = 4


class RejectLimitError(RmosError):
    """Most of the recent records fail, so the fault is likely ours. Nothing was written."""

    exit_status = 4


class IntegrityError(RmosError):
    """What is stored is not what was written. Nothing was repaired."""

    exit_status = 5


class StoreError(RmosError):
    """The store cannot be read or written. Nothing was acknowledged; a restart does it again."""

    exit_status = 6


class StoreNotReadyError(StoreError):
    """The store is missing, of another cluster, or does not fit the log. Nothing was done."""


class StoreAwayError(StoreError):
    """A database or a bucket does not answer. Nothing was acknowledged; the same is done again."""


class LockWaitEndedError(StoreError):
    """The process was stopped while it waited for a lock. Nothing was done."""


class LogMovedError(StoreError):
    """Another process went on with a log meanwhile, where no lock held it off.

    Nothing was acknowledged. In a bucket nothing is locked, so the batch is begun again from what
    the log says now. On a disk a lock holds all others off: who went on had none, and the worker
    stops.
    """


class DiskFullError(StoreError):
    """No space is left for a blob. Nothing of it was kept."""


class AddressTakenError(RmosError):
    """Another program listens at the address of a server. Nothing was started."""

    exit_status = 6


class ExecutorError(StoreError):
    """A child process or a thread cannot be started, or died.

    Nothing was acknowledged.
    """


@contextmanager
def thread_faults() -> Iterator[None]:
    """Name what Python has only a RuntimeError for: a thread that cannot be started.

    Raises:
        ExecutorError: It cannot.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_thread_fault(error):
            raise
        raise ExecutorError(NO_THREAD) from error


@contextmanager
def input_faults(what: str, way_out: str = "") -> Iterator[None]:
    """Name a file of the caller that cannot be read or written.

    Args:
        what: The first words of the sentence: `FILE cannot be read`.
        way_out: Its last words.

    Raises:
        InputError: The system refused.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"{what}: {error.strerror or error}{way_out}.") from error


def is_thread_fault(error: BaseException) -> bool:
    """Tell whether `error` is a thread that cannot be started."""
    return isinstance(error, RuntimeError) and str(error) == "can't start new thread"


class ServiceError(RmosError):
    """The HTTP API cannot be reached, or its answer is none that this release knows."""

    exit_status = 6


class BrokerError(RmosError):
    """The broker cannot be reached or refused. Nothing was committed."""

    exit_status = 6


class TopicsError(BrokerError):
    """A topic is missing or has other settings than it must have. Nothing was consumed."""


class UnsendableError(RmosError):
    """A topic refuses a record for what it is, so sending it again is of no use.

    Nothing was committed.
    """

    exit_status = 6


class ReceiptTimeoutError(BrokerError):
    """The broker holds the request, but its event did not arrive in time. It will be judged."""
