"""Judging in a child process, so that it runs while the worker waits for the disk.

Threads would not do: judging holds the interpreter, and the many short system calls of the store
each have to wait for it. Small batches are judged here and now: the way to the other process and
back would take longer.

Verdicts on runs come back as MessagePack, which takes a sixth of the time of a pickle; all others,
and a chunk with a value that it cannot hold, are pickled.

The child process imports this module, so it imports nothing of the store or of the broker: that
would be 29 MB more.
"""

import asyncio
import gc
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Final, Generic, Self, TypeVar, get_type_hints

import msgspec

from pipeline.consumers.engine.child_process import child_pool, init_child, submitted
from pipeline.core.dead_letters.carried_record import ReadContent
from pipeline.core.runs.verdict import JudgedRun, Rejected
from pipeline.errors import ExecutorError

Body = tuple[ReadContent | None, ReadContent | None]
"""Key and value of a record."""

Verdict = TypeVar("Verdict")
Judge = Callable[[ReadContent | None, ReadContent | None], Verdict]
"""A function of a module, so that the child process finds it by its name."""

SMALL_BATCH_RECORDS = 64

SMALL_BATCH_BYTES = 1024 * 1024
"""4 MiB of the worst digits take a second and more: judged here, some of them kept the loop from
its heartbeats until the group gave the worker up."""


_RUN_VERDICT: Final[Any] = JudgedRun | Rejected
_unpack = msgspec.msgpack.Decoder(list[_RUN_VERDICT]).decode


class Judging(Generic[Verdict]):
    """Judges bodies, in order, with up to one child process."""

    def __init__(self, judge: Judge[Verdict], *, in_child: bool) -> None:
        """Prepare; the child process begins with the first batch that is not small.

        Args:
            judge: Returns the verdict on a record.
            in_child: Whether there is one.

        Raises:
            ExecutorError: There can be none.
        """
        self._judge = judge
        self._judges_runs = get_type_hints(judge).get("return") == _RUN_VERDICT
        self._pool = child_pool(1, _init_judge) if in_child else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    async def judge(self, bodies: Sequence[Body]) -> list[Verdict]:
        """Return what each of `bodies` is.

        Raises:
            ExecutorError: The child process cannot be started.
            MemoryError: The child process was killed, as the kernel does where memory is short.
            OSError: The machine is at fault, not a record.
        """
        if self._pool is None or _is_small(bodies):
            return _judge_all(self._judge, bodies)
        judge_all = _judge_packed if self._judges_runs else _judge_all
        try:
            judging = submitted(self._pool, judge_all, self._judge, bodies)
            verdicts: Any = await asyncio.wrap_future(judging)
        except ExecutorError:
            self._pool = None
            raise
        except BrokenProcessPool as error:
            raise MemoryError(
                "The process in which this worker judges was killed, most likely for want of "
                "memory; nothing was acknowledged; give it more memory, or set a smaller "
                "RMOS_BATCH_RECORDS, then start again."
            ) from error
        return _unpack(verdicts) if isinstance(verdicts, bytes) else verdicts


def _is_small(bodies: Sequence[Body]) -> bool:
    return (
        len(bodies) < SMALL_BATCH_RECORDS
        and sum(len(value or b"") for _, value in bodies) < SMALL_BATCH_BYTES
    )


def _judge_all(judge: Judge[Verdict], bodies: Sequence[Body]) -> list[Verdict]:
    return [judge(key, value) for key, value in bodies]


def _judge_packed(judge: Judge[Verdict], bodies: Sequence[Body]) -> bytes | list[Verdict]:
    """Return the verdicts as MessagePack; as they are where it has no place for one."""
    verdicts = _judge_all(judge, bodies)
    try:
        return msgspec.msgpack.encode(verdicts)
    except (TypeError, ValueError, OverflowError):
        return verdicts  # Such as an integer above 64 bits in the row of an older store.


def _init_judge() -> None:
    init_child()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)
