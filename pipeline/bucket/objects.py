"""The objects of a bucket, many at a time: created once, swapped, compared.

A refusal is a question and never an answer. What a server was sent twice, as its first answer was
lost on the way, it refuses the second time; and it may refuse what collided and was not stored. So
the bytes that are there decide:

| there is | of a create | of a swap |
|---|---|---|
| what we sent | it is there | it is ours |
| what was there before | - | again, at most five times |
| something else | it differs | another went on |
| nothing | again, at most five times | another went on |

What has no answer at all is the network's fault. It may be stored or not: a second try of
the same finds out.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from hashlib import sha256
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import obstore

from pipeline.bucket.connection import (
    REFUSALS,
    USUAL,
    Connection,
    Patience,
    names_of,
    replacing,
    version_of,
)
from pipeline.bucket.faults import refuse_missing_bucket
from pipeline.bucket.url import BucketUrl
from pipeline.errors import StoreAwayError

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult, ObjectMeta

IN_FLIGHT: Final = 64
"""Most requests at once, of all threads: 512 objects take eight times as long as one."""

ATTEMPTS: Final = 5
"""How often is tried what is refused and not there: behind a delete marker that has no end."""

PIECE_BYTES: Final = 8 * 1024 * 1024
"""Of a large object, for one request: within its time at 1 MB/s."""

T = TypeVar("T")
Call = Callable[[], Coroutine[Any, Any, T]]


class Found(NamedTuple):
    """An object, read.

    Attributes:
        content: All of its bytes.
        version: What a swap compares.
    """

    content: bytes
    version: str


class Objects(Connection):
    """The objects of one bucket below one prefix.

    The methods that are coroutines are for `all`.
    """

    def __init__(self, url: BucketUrl, patience: Patience = USUAL) -> None:
        """Prepare as a connection; nothing is sent."""
        super().__init__(url, patience)
        self._first_pause = patience.first_pause
        # In a thread of its own, as who asks may have a loop that runs; threads ask at once.
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="bucket", daemon=True)
        self._starting = Lock()
        self._permits = asyncio.Semaphore(IN_FLIGHT)

    def close(self) -> None:
        """Let go of the event loop; a second time nothing is left to do."""
        with self._starting:
            if self._thread.is_alive():
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._thread.join()
            self._loop.close()

    def all(self, calls: Iterable[Call[T]]) -> list[T]:
        """Make many calls at once; return what they returned, in their order."""
        if not (wanted := list(calls)):
            return []
        return self._run(_all(wanted, self._permits))

    def each(
        self, call: Callable[[str], Coroutine[Any, Any, T]], paths: Iterable[str]
    ) -> dict[str, T]:
        """Make one call for each of `paths`, all at once; return what each returned."""
        wanted = list(paths)
        found = self.all(partial(call, path) for path in wanted)
        return dict(zip(wanted, found, strict=True))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        with self._starting:
            if self._thread.ident is None:
                self._thread.start()
            running = asyncio.run_coroutine_threadsafe(work, self._loop)
        return running.result()

    def opened(self, path: str, options: "GetOptions | None" = None) -> "GetResult":
        """Return an object whose bytes are still to be read, of all threads at once.

        Raises:
            FileNotFoundError: There is none.
        """
        try:
            return obstore.get(self.store, path, options=options)
        except FileNotFoundError as error:
            refuse_missing_bucket(self.name, error)
            raise FileNotFoundError(path) from error

    async def create(self, path: str, content: bytes) -> bool | None:
        """Make an object where there is none.

        Returns:
            True for a new one; where there is one already, None if it has the same bytes, False if
            it has others.
        """
        for attempt in range(ATTEMPTS):
            try:
                await obstore.put_async(self.store, path, content, mode="create")
            except REFUSALS:
                found = await self.holds(path, content)
                if found is not None:
                    return None if found else False
                await self._pause(attempt)
            else:
                return True
        raise StoreAwayError(
            f"The bucket {self.name} refuses to create {path}, and has nothing there: it was "
            "deleted, or too many ask at once; nothing was acknowledged."
        )

    async def swap(self, path: str, content: bytes, version: str) -> Found | None:
        """Replace the object that has this version; None where there is another by now."""
        for attempt in range(ATTEMPTS):
            try:
                put = await obstore.put_async(self.store, path, content, mode=replacing(version))
            except REFUSALS:
                found = await self.get(path)
                if found is None or found.content == content:
                    return found
                if found.version != version:
                    return None
                await self._pause(attempt)
            else:
                return Found(content, version_of(put))
        raise StoreAwayError(
            f"The bucket {self.name} refuses to replace {path}, which is as it was: too many ask "
            "at once; nothing was acknowledged."
        )

    async def holds(self, path: str, content: bytes) -> bool | None:
        """Return whether an object has these bytes; None where there is no object."""
        result = await self._result(path)
        if result is None:
            return None
        # What somebody else has put there may be of any size.
        return result.meta["size"] == len(content) and await _bytes(result) == content

    async def get(self, path: str, limit_bytes: int | None = None) -> Found | None:
        """Return an object; None where there is none, or one with more bytes than the limit."""
        result = await self._result(path)
        if result is None or (limit_bytes is not None and result.meta["size"] > limit_bytes):
            return None
        return Found(await _bytes(result), version_of(result.meta))

    async def sha256(self, path: str, size_bytes: int | None = None) -> str | None:
        """Return the SHA-256 of an object; None where there is none.

        Args:
            path: Of the object.
            size_bytes: Where given, an object of another size is not read; its hash is empty.
        """
        result = await self._result(path)
        if result is None:
            return None
        size = result.meta["size"]
        if size_bytes not in {None, size}:
            return ""
        if size <= PIECE_BYTES:
            return sha256(await _bytes(result)).hexdigest()
        digest = sha256()
        for start in range(0, size, PIECE_BYTES):
            wanted = range_of(result.meta, start, start + PIECE_BYTES)
            digest.update(await _bytes(await obstore.get_async(self.store, path, options=wanted)))
        return digest.hexdigest()

    async def is_there(self, path: str) -> bool:
        """Return whether there is an object."""
        return await self.meta(path) is not None

    async def meta(self, path: str) -> "ObjectMeta | None":
        """Return what the server says of an object; None where there is none."""
        try:
            return await obstore.head_async(self.store, path)
        except FileNotFoundError as error:
            refuse_missing_bucket(self.name, error)
            return None

    async def listed(self, folder: str) -> tuple[list[str], list[str]]:
        """Return what `names` returns, for many at once."""
        return names_of(folder, await obstore.list_with_delimiter_async(self.store, folder))

    async def is_folder(self, folder: str) -> bool:
        """Return whether any path begins with a folder."""
        found = await obstore.list_with_delimiter_async(self.store, folder)
        return bool(found["objects"] or found["common_prefixes"])

    async def delete(self, path: str) -> None:
        """Remove an object; one that is not there is as removed."""
        try:
            await obstore.delete_async(self.store, path)
        except FileNotFoundError as error:
            refuse_missing_bucket(self.name, error)

    async def _result(self, path: str) -> "GetResult | None":
        try:
            return await obstore.get_async(self.store, path)
        except FileNotFoundError as error:
            refuse_missing_bucket(self.name, error)
            return None

    async def _pause(self, attempt: int) -> None:
        jitter = 0.5 + random.random()  # noqa: S311  # it keeps two apart, and no secret
        await asyncio.sleep(self._first_pause.total_seconds() * 2**attempt * jitter)


def range_of(meta: "ObjectMeta", start: int, end: int) -> "GetOptions":
    """Return what asks for a part of an object, as long as it is the one that was found."""
    wanted: GetOptions = {"range": (start, min(end, meta["size"]))}
    if meta["e_tag"] is not None:
        wanted["if_match"] = meta["e_tag"]
    return wanted


async def _bytes(result: "GetResult") -> bytes:
    return bytes(await result.bytes_async())


async def _all(calls: list[Call[T]], permits: asyncio.Semaphore) -> list[T]:
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_one(call, permits)) for call in calls]
    except BaseExceptionGroup as failed:
        # The others were cancelled; each may have been stored or not, as where an answer is lost.
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


async def _one(call: Call[T], permits: asyncio.Semaphore) -> T:
    async with permits:
        return await call()
