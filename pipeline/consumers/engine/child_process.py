"""A child process: it ends with its parent, and with nothing else."""

import ctypes
import errno
import gc
import mmap
import multiprocessing
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar

from pipeline.errors import MORE_PROCESSES, NO_MEMORY, ExecutorError

if TYPE_CHECKING:
    # A child process imports this module, and asyncio would be 3 MB more of it.
    import asyncio

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_PR_SET_PDEATHSIG = 1
_QUIET_TRACKER = "ignore::UserWarning:multiprocessing.resource_tracker"

_PROGRAM = f"from {__name__} import answer_all; answer_all()"

Buffer: TypeAlias = bytes | mmap.mmap
Answer: TypeAlias = Callable[[Buffer], tuple[bytes, bytes]]
"""Returns the form of an answer, one byte, and the answer."""


class ChildProcessEnded(Exception):  # noqa: N818 - killed from outside: no error of the program
    """A child process ended before it had answered."""


class ChildProcess:
    """A child process that answers one question after the other.

    A question and its answer share a file in memory. Only its descriptor and one byte go through
    the socket, so neither process waits for the other to read, and this one wakes once an answer.
    """

    def __init__(self, begin: Callable[[Any], Answer], argument: object) -> None:
        """Start it, as a child of this thread whose loop runs, and do not wait for it.

        Args:
            begin: A function of a module; the child process calls it once, with `argument`.
            argument: Can be pickled.

        Raises:
            ExecutorError: It cannot be started.
        """
        import asyncio  # noqa: PLC0415 - see above

        self._loop = asyncio.get_running_loop()
        self._waiting: deque[asyncio.Future[bytes]] = deque()
        try:
            self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise _not_started(error) from error
        self._socket.setblocking(False)
        with theirs:
            self._socket.send(pickle.dumps((begin, argument)))
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-c", _PROGRAM],
                    stdin=theirs.fileno(),
                    env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
                )
            except OSError as error:
                self._socket.close()
                raise _not_started(error) from error

    async def ask(self, question: bytes, read: Callable[[bytes, Buffer], Result]) -> Result:
        """Return what `read` makes of the answer: called with its form and its bytes.

        Raises:
            ChildProcessEnded: It ended.
            MemoryError: No memory is left for question or answer.
            OSError: Nothing can be opened any more.
        """
        answered: asyncio.Future[bytes] = self._loop.create_future()
        file = os.memfd_create("question")
        try:
            _write(file, question)
            del question  # Megabytes, which the file has too.
            try:
                socket.send_fds(self._socket, [b"?"], [file])
            except ConnectionError as error:
                raise ChildProcessEnded from error
            if not self._waiting:
                self._loop.add_reader(self._socket, self._take)
            self._waiting.append(answered)
            form = await answered
            if not form:
                raise ChildProcessEnded
            with mmap.mmap(file, 0, access=mmap.ACCESS_READ) as answer:
                return read(form, answer)
        except OSError as error:
            if error.errno == errno.ENOMEM:
                raise MemoryError(NO_MEMORY) from error
            raise
        finally:
            os.close(file)

    def _take(self) -> None:
        """Take the next answer; an empty one, again and again, once the process has ended."""
        try:
            form = self._socket.recv(1)
        except ConnectionError:
            form = b""
        answered = self._waiting.popleft()
        if not self._waiting:
            self._loop.remove_reader(self._socket)
        if not answered.cancelled():
            answered.set_result(form)

    def end(self) -> None:
        """End it at once, and cancel all that wait for an answer."""
        if self._waiting:
            self._loop.remove_reader(self._socket)
        for answered in self._waiting:
            answered.cancel()
        self._socket.close()
        self._process.kill()
        self._process.wait()


def answer_all() -> None:
    """Answer as a child process, until the worker closes its end of the socket."""
    # An answer that nobody waits for any more is no fault.
    with socket.socket(fileno=0) as questions, suppress(ConnectionError):
        begin, argument = pickle.loads(questions.recv(65536))  # noqa: S301 - of our own worker
        answer = begin(argument)
        while files := socket.recv_fds(questions, 1, 1)[1]:
            with mmap.mmap(files[0], 0, access=mmap.ACCESS_READ) as question:
                form, content = answer(question)
            _write(files[0], content)
            os.close(files[0])
            del content
            questions.send(form)


def _write(file: int, content: bytes) -> None:
    """Make `content` all that a file holds, over the pages that it has already."""
    rest, written = memoryview(content), 0
    while rest:
        done = os.pwrite(file, rest, written)
        rest, written = rest[done:], written + done
    os.ftruncate(file, written)


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
            "to write to /dev/shm; RMOS_AUDIT_PROCESSES=0 lets an audit do without."
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
        raise _not_started(error) from error


def _not_started(error: Exception) -> ExecutorError:
    return ExecutorError(
        f"No child process can be started ({error}); nothing was acknowledged: {MORE_PROCESSES}"
    )


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
    # As in a service: thousands of parsed values at a time are no reason to look at all that lives.
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)
