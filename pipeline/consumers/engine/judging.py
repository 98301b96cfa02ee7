"""Judging in a child process, so that it runs while the worker waits for the disk.

Threads would not do: judging holds the interpreter, and the many short system calls of the store
each have to wait for it. Small batches are judged here and now: the way to the other process and
back would take longer.

Bodies go there as MessagePack, and verdicts on runs come back as such, which takes a sixth of the
time of a pickle; all others, and a chunk with a value that it cannot hold, are pickled.

The child process imports this module, so it imports nothing of the store or of the broker: that
would be 29 MB more.
"""

import pickle
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, Self, TypeVar, get_type_hints

import msgspec

from pipeline.consumers.engine.child_process import (
    Buffer,
    ChildProcess,
    ChildProcessEnded,
    init_child,
)
from pipeline.core.dead_letters.carried_record import ReadContent
from pipeline.core.runs.verdict import JudgedRun, Rejected

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
_unpack_bodies = msgspec.msgpack.Decoder(list[Body]).decode

_PACKED, _PICKLED, _RAISED = b"=", b"p", b"!"
"""How the child process answers: with verdicts in one of two forms, or with an exception."""


class Judging(Generic[Verdict]):
    """Judges bodies, in order, with up to one child process."""

    def __init__(self, judge: Judge[Verdict], *, in_child: bool) -> None:
        """Prepare; the child process begins with the first batch that is not small.

        Args:
            judge: Returns the verdict on a record.
            in_child: Whether there is one.
        """
        self._judge = judge
        self._in_child = in_child
        self._child: ChildProcess | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._child is not None:
            self._child.end()

    async def judge(self, bodies: Sequence[Body]) -> list[Verdict]:
        """Return what each of `bodies` is.

        Raises:
            ExecutorError: The child process cannot be started.
            MemoryError: The child process was killed, as the kernel does where memory is short.
            OSError: The machine is at fault, not a record.
        """
        if not self._in_child or _is_small(bodies):
            return _judge_all(self._judge, bodies)
        if self._child is None:
            self._child = ChildProcess(_begin, self._judge)
        try:
            verdicts: list[Verdict] = await self._child.ask(
                msgspec.msgpack.encode(bodies), _read_verdicts
            )
        except ChildProcessEnded as error:
            raise MemoryError(
                "The process in which this worker judges was killed, most likely for want of "
                "memory; nothing was acknowledged; give it more memory, or set a smaller "
                "RMOS_BATCH_RECORDS, then start again."
            ) from error
        return verdicts


def _is_small(bodies: Sequence[Body]) -> bool:
    return (
        len(bodies) < SMALL_BATCH_RECORDS
        and sum(len(value or b"") for _, value in bodies) < SMALL_BATCH_BYTES
    )


def _judge_all(judge: Judge[Verdict], bodies: Sequence[Body]) -> list[Verdict]:
    return [judge(key, value) for key, value in bodies]


def _judges_runs(judge: Judge[Any]) -> bool:
    return bool(get_type_hints(judge).get("return") == _RUN_VERDICT)


def _begin(judge: Judge[Any]) -> Callable[[Buffer], tuple[bytes, bytes]]:
    """Return what the child process does with a chunk."""
    init_child()
    judges_runs = _judges_runs(judge)

    def answer(packed: Buffer) -> tuple[bytes, bytes]:
        try:
            verdicts = _judge_all(judge, _unpack_bodies(packed))
        except Exception as error:  # noqa: BLE001 - raised in the worker
            return _RAISED, pickle.dumps(error)
        return _packed(verdicts) if judges_runs else (_PICKLED, pickle.dumps(verdicts))

    return answer


def _packed(verdicts: Sequence[Any]) -> tuple[bytes, bytes]:
    """Return the verdicts as MessagePack; as a pickle where it has no place for one."""
    try:
        return _PACKED, msgspec.msgpack.encode(verdicts)
    except (TypeError, ValueError, OverflowError):
        # Such as an integer above 64 bits.
        return _PICKLED, pickle.dumps(verdicts)


def _read_verdicts(form: bytes, content: Buffer) -> Any:  # noqa: ANN401 - of any judge
    if form == _PACKED:
        return _unpack(content)
    answer: Any = pickle.loads(content)  # noqa: S301 - of our own child process
    if form == _RAISED:
        raise answer
    return answer
