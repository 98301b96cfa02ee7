"""A child process: it ends with its parent, and with nothing else."""

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import ParamSpec, TypeVar

from pipeline.errors import MORE_PROCESSES, ExecutorError

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_PR_SET_PDEATHSIG = 1
_QUIET_TRACKER = "ignore::UserWarning:multiprocessing.resource_tracker"


def child_pool(
    count: int, begin: Callable[..., None], arguments: tuple[object, ...] = ()
) -> ProcessPoolExecutor:
    """Return a pool of `count` child processes; each begins with its first piece of work.

    Raises:
        ExecutorError: The machine has no place for what they share, such as /dev/shm.
    """
    # Spawned, not forked: this process has threads, and connections to the broker.
    spawning = multiprocessing.get_context("spawn")
    # What a process that was killed leaves behind is cleared away by a tracker of Python's own;
    # that it did so is no line for an operator.
    given = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, (given, _QUIET_TRACKER)))
    try:
        return ProcessPoolExecutor(count, spawning, begin, arguments)
    except OSError as error:
        raise ExecutorError(
            f"No child process can be started ({error.strerror or error}): this user must be able "
            "to write to /dev/shm; RMOS_JUDGE_IN_CHILD_PROCESS=false lets a worker do without, "
            "RMOS_AUDIT_PROCESSES=0 an audit."
        ) from error


def submitted(
    pool: ProcessPoolExecutor,
    work: Callable[Arguments, Result],
    *arguments: Arguments.args,
    **named: Arguments.kwargs,
) -> Future[Result]:
    """Give `pool` a piece of work; the first one starts its child processes.

    Raises:
        ExecutorError: They cannot be started; the pool cannot be used or shut down any more.
        BrokenProcessPool: One of them was killed.
    """
    there = set(multiprocessing.active_children())
    try:
        return pool.submit(work, *arguments, **named)
    except BrokenProcessPool:
        raise
    except (RuntimeError, OSError) as error:
        # Where the pool's thread is what cannot be started, its child processes are there already:
        # Python would wait for them at its end, and nothing would ever end them.
        for child in set(multiprocessing.active_children()) - there:
            child.kill()
        raise ExecutorError(
            f"No child process can be started ({error}); nothing was acknowledged: {MORE_PROCESSES}"
        ) from error


def init_child() -> None:
    """Set up this process as a child of the thread that started it.

    The thread: where that one ends, the kernel ends its children, so it must outlive their work.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        # Both reach a whole process group; the other still needs this one to finish its work.
        signal.signal(number, signal.SIG_IGN)
    # One that is killed cannot stop its child process, so the kernel does (prctl(2)).
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:
        # It was killed before we could ask the kernel: nothing would ever end us.
        os._exit(1)
    # Verdicts must not depend on the environment: our own limit of digits is the one that counts.
    sys.set_int_max_str_digits(0)
