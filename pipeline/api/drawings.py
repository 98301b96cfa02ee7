"""Drawings of programs: made in a child process, one after the other, and kept for a while.

A program of 16 MiB takes seconds of Python. In a thread it would hold the interpreter, so that the
event loop answers late for as long; the child process has its own. It begins with the first
drawing. What was drawn is kept by the hash of the program, so it never has to be forgotten for
being old.
"""

import asyncio
import gc
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from pipeline.consumers.engine.child_process import (
    Buffer,
    ChildProcess,
    ChildProcessEnded,
    init_child,
)
from pipeline.core.json.canonical import canonical_json
from pipeline.core.toolpath import read_toolpath
from pipeline.core.toolpath.svg import svg_of
from pipeline.errors import ExecutorError

KEPT_LIMIT_BYTES: Final = 32 << 20
"""Of all drawings that are kept: those of some thirty long programs."""

_DOCUMENT: Final = b"d"
_PICTURE: Final = b"p"
_SHA256_DIGITS: Final = 64
_FORM: Final = b"="


class Drawings:
    """Draws programs; any number of calls may wait at once, on one event loop."""

    def __init__(self, kept_limit_bytes: int = KEPT_LIMIT_BYTES) -> None:
        """Prepare; no process is started yet.

        Args:
            kept_limit_bytes: Of all drawings that are kept.
        """
        self._kept_limit_bytes = kept_limit_bytes
        self._kept: OrderedDict[bytes, bytes] = OrderedDict()
        self._kept_bytes = 0
        self._child: ChildProcess | None = None
        # A request that waits for the same program finds it kept.
        self._one_at_a_time = asyncio.Lock()

    async def document(self, sha256: str, program: bytes) -> bytes:
        """Return the moves of a program as canonical JSON.

        Args:
            sha256: Of the whole program.
            program: As much of it as is drawn.

        Raises:
            ExecutorError: The child process cannot be started, or was killed twice.
        """
        return await self._drawn(_DOCUMENT + sha256.encode(), program)

    async def picture(self, sha256: str, program: bytes) -> bytes:
        """Return a program as an SVG picture; arguments and errors as for `document`."""
        return await self._drawn(_PICTURE + sha256.encode(), program)

    def close(self) -> None:
        """End the child process."""
        if self._child is not None:
            self._child.end()
            self._child = None

    async def _drawn(self, key: bytes, program: bytes) -> bytes:
        if (kept := self._take(key)) is not None:
            return kept
        async with self._one_at_a_time:
            if (kept := self._take(key)) is not None:
                return kept
            drawn = await self._ask(key + program)
            self._keep(key, drawn)
            return drawn

    async def _ask(self, question: bytes) -> bytes:
        for _ in range(2):
            if self._child is None:
                self._child = ChildProcess(_begin, None)
            try:
                return await self._child.ask(question, _read)
            except ChildProcessEnded:
                # Killed, perhaps for want of memory, and perhaps not by this program.
                self.close()
        message = "The process that draws was killed twice, most likely for want of memory."
        raise ExecutorError(message)

    def _take(self, key: bytes) -> bytes | None:
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def _keep(self, key: bytes, drawn: bytes) -> None:
        self._kept[key] = drawn
        self._kept_bytes += len(drawn)
        while self._kept_bytes > self._kept_limit_bytes:
            _, gone = self._kept.popitem(last=False)
            self._kept_bytes -= len(gone)


def _begin(_: None) -> Callable[[Buffer], tuple[bytes, bytes]]:
    """Return what the child process does with a program."""
    init_child()
    # Moves refer to no moves: nothing of them is a cycle, and looking for one takes a sixth of all.
    gc.disable()

    def answer(question: Buffer) -> tuple[bytes, bytes]:
        form, sha256 = question[:1], bytes(question[1 : 1 + _SHA256_DIGITS]).decode()
        toolpath = read_toolpath(question[1 + _SHA256_DIGITS :])
        if form == _PICTURE:
            return _FORM, svg_of(toolpath, f"What the program {sha256} draws").encode()
        return _FORM, canonical_json({**toolpath.document(), "gcode_sha256": sha256})

    return answer


def _read(_form: bytes, content: Buffer) -> bytes:
    return bytes(content)
