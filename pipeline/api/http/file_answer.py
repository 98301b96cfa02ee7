"""An answer that is a file: read in threads as the client takes it, and closed whatever happens."""

from collections.abc import AsyncGenerator, Callable, Mapping

import aiofiles
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from pipeline.api.dependencies import ThreadPool
from pipeline.errors import thread_faults
from pipeline.storage.attachments import PIECE_BYTES

SANDBOX = "default-src 'none'; sandbox"
"""The Content-Security-Policy of a file: a browser may load and run nothing of it."""


class FileAnswer(StreamingResponse):
    """Closes its file, also where the answer is not sent whole."""

    def __init__(
        self,
        pieces: AsyncGenerator[bytes],
        close: Callable[[], None],
        status: int,
        headers: Mapping[str, str],
    ) -> None:
        """Prepare.

        Args:
            pieces: What is sent.
            close: Closes the file.
            status: HTTP status.
            headers: With Content-Length.
        """
        super().__init__(pieces, status, headers)
        self._pieces = pieces
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._pieces.aclose()
            self._close()


async def pieces_of(descriptor: int, part: range, threads: ThreadPool) -> AsyncGenerator[bytes]:
    """Yield a part of an open file, at most 1 MiB at a time; the file stays open.

    A file that was cut short meanwhile ends the answer before its Content-Length.
    """
    opened = aiofiles.open(descriptor, "rb", buffering=0, closefd=False, executor=threads.executor)
    with thread_faults():
        async with opened as file:
            await file.seek(part.start)
            left = len(part)
            while left and (piece := await file.read(min(left, PIECE_BYTES))):
                left -= len(piece)
                yield piece
