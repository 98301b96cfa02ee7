"""Whether a bucket can keep a store, asked of the bucket itself.

No list of servers is trusted: whether one keeps its word depends on its version, its settings and
what stands before it. Six questions are asked of objects with a random name in the folder of the
ledger, where alone a store replaces and removes, so a policy needs no exception for them.

| question | what a server that fails it does to a store |
|---|---|
| create twice | replaces a record by another |
| two creates that overlap | the same, when two workers hold one partition |
| two swaps that overlap | loses leaves of one of two workers |
| a stale swap | takes a log back |
| a swap on nothing | begins a log that was lost again |
| list after write | hides files from an audit |
"""

import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import timedelta
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Final, NamedTuple

import obstore
from obstore.exceptions import BaseError, NotSupportedError

from pipeline.bucket.connection import REFUSALS, Connection, replacing, version_of
from pipeline.bucket.faults import refuse_missing_bucket, status_of
from pipeline.bucket.signed_put import SignedPut
from pipeline.core.store.log_store import LEDGER_FOLDER
from pipeline.errors import StoreAwayError, StoreNotReadyError

if TYPE_CHECKING:
    from obstore import GetResult, PutMode

_LISTED: Final = 5
_HALF_BYTES: Final = 32 * 1024
LOOKED_SECONDS: Final = 1.0
"""So long after two heads were sent a server has looked at both, if it looks before it stores."""

_TAKEN: Final = range(200, 300)
_REFUSED: Final = {409, 412}
_DENIED: Final = {401, 403}
_NOT_KNOWN: Final = {400, 405, 501}
"""Answers to a condition by a server that does not know it."""


class Answer(NamedTuple):
    """What one question got.

    Attributes:
        question: Which one.
        got: What the bucket did, for people.
        holds: Whether a store may rest on it.
    """

    question: str
    got: str
    holds: bool


class _BrokenPromiseError(Exception):
    """The bucket did what it must not do; the text is what."""


def ask_bucket(connection: Connection) -> list[Answer]:
    """Ask all six questions; return what each got. What was written for them is removed.

    Raises:
        StoreAwayError: The bucket does not answer, so nothing is known.
        StoreNotReadyError: There is no such bucket, or it denies us what we ask for.
    """
    with connection.faults(), closing(_Scratch(connection)) as scratch:
        return [_ask(question, ask, scratch) for question, ask in QUESTIONS.items()]


def _ask(question: str, ask: "Callable[[_Scratch], str]", scratch: "_Scratch") -> Answer:
    try:
        return Answer(question, ask(scratch), holds=True)
    except _BrokenPromiseError as error:
        return Answer(question, str(error), holds=False)
    except BaseError as error:
        status = status_of(error)
        if not isinstance(error, NotSupportedError) and status[:3] not in map(str, _NOT_KNOWN):
            raise
        return Answer(question, f"it does not know the condition ({status or error})", holds=False)


class _Scratch:
    """Objects to ask with, below one random name."""

    def __init__(self, connection: Connection) -> None:
        self.folder = f"{LEDGER_FOLDER}/.probe-{secrets.token_hex(8)}"
        self._connection = connection
        self._names = (f"{self.folder}/{number}" for number in count())
        self._used: list[str] = []

    def path(self) -> str:
        """Return a path that has no object."""
        self._used.append(path := next(self._names))
        return path

    def put(self, path: str, content: bytes, mode: "PutMode" = "create") -> str | None:
        """Create or replace an object; return its new version, None where the bucket refuses."""
        try:
            return version_of(obstore.put(self._connection.store, path, content, mode=mode))
        except (*REFUSALS, FileNotFoundError):
            # An answer that was lost on the way is no refusal: each content is sent once.
            found = self._get(path)
            is_ours = found is not None and bytes(found.bytes()) == content
            return version_of(found.meta) if found is not None and is_ours else None

    def _get(self, path: str) -> "GetResult | None":
        try:
            return obstore.get(self._connection.store, path)
        except FileNotFoundError as error:
            refuse_missing_bucket(self._connection.name, error)
            return None

    def begin(self, path: str) -> str:
        """Create an object that is to be swapped; return its version.

        Raises:
            _BrokenPromiseError: The bucket refuses a name that is free.
        """
        version = self.put(path, b"first")
        if version is None:
            raise _BrokenPromiseError("it refuses to create an object under a name that is free")
        return version

    def read(self, path: str) -> bytes | None:
        """Return what is there, if anything is."""
        found = self._get(path)
        return None if found is None else bytes(found.bytes())

    def listed(self) -> list[str]:
        """Return the paths that the bucket lists."""
        return self._connection.names(self.folder)[0]

    def overlap(self, path: str, condition: "PutMode", *, together: bool) -> list[int]:
        """Send two PUTs for one path that begin before either ends; return which were taken.

        Args:
            path: For both; the bodies are those of `_body`.
            condition: Of both.
            together: Whether both end before either is answered; else the first is done by then.
                Where a signed PUT cannot have the condition, both are only sent at once.

        Raises:
            _BrokenPromiseError: The server does not know the condition.
            StoreAwayError: There was no answer.
            StoreNotReadyError: It is denied.
        """
        bodies = [_body(number) for number in (0, 1)]
        headers = self._connection.signed_headers(condition)
        if headers is None:
            with ThreadPoolExecutor(2) as pool:
                made = pool.map(partial(self.put, path, mode=condition), bodies)
                return [number for number, version in enumerate(made) if version is not None]
        url = obstore.sign(self._connection.store, "PUT", path, timedelta(minutes=5))
        try:
            with (
                closing(SignedPut(url, len(bodies[0]), headers)) as first,
                closing(SignedPut(url, len(bodies[1]), headers)) as second,
            ):
                puts = [first, second]
                for put, body in zip(puts, bodies, strict=True):
                    put.send(body[:_HALF_BYTES])
                time.sleep(LOOKED_SECONDS)
                statuses = []
                for put, body in zip(puts, bodies, strict=True):
                    put.send(body[_HALF_BYTES:])
                    if not together:
                        statuses.append(put.answer())
                if together:
                    statuses = [put.answer() for put in puts]
        except OSError as error:
            raise StoreAwayError(
                f"The bucket {self._connection.name} does not answer a signed PUT ({error}); "
                "nothing was found out about it."
            ) from error
        return [number for number, status in enumerate(statuses) if self._was_taken(status)]

    def _was_taken(self, status: int | None) -> bool:
        if status in _NOT_KNOWN:
            raise _BrokenPromiseError(f"it does not know the condition ({status})")
        if status in _DENIED:
            raise StoreNotReadyError(
                f"The bucket {self._connection.name} denies a signed PUT ({status}): nothing was "
                "found out about it."
            )
        if status not in _TAKEN and status not in _REFUSED:
            raise StoreAwayError(
                f"The bucket {self._connection.name} answers a signed PUT by "
                f"{status or 'nothing'}; nothing was found out about it."
            )
        return status in _TAKEN

    def close(self) -> None:
        """Remove what was written; where that is denied or fails it stays, and harms nothing."""
        for path in self._used:
            with suppress(BaseError, FileNotFoundError):
                obstore.delete(self._connection.store, path)


def _body(number: int) -> bytes:
    return bytes([number]) * (2 * _HALF_BYTES)


def _create_twice(scratch: _Scratch) -> str:
    path = scratch.path()
    scratch.begin(path)
    if scratch.put(path, b"second") is not None:
        raise _BrokenPromiseError("it took both")
    _expect(scratch, path, b"first")
    return "it refused the second"


def _creates_overlap(scratch: _Scratch) -> str:
    for together in (False, True):
        path = scratch.path()
        taken = scratch.overlap(path, "create", together=together)
        _expect_one(scratch, path, taken)
    return "it took one of two, twice"


def _swaps_overlap(scratch: _Scratch) -> str:
    for together in (False, True):
        path = scratch.path()
        taken = scratch.overlap(path, replacing(scratch.begin(path)), together=together)
        _expect_one(scratch, path, taken)
    return "it took one of two, twice"


def _expect_one(scratch: _Scratch, path: str, taken: list[int]) -> None:
    if len(taken) != 1:
        raise _BrokenPromiseError("it took both" if taken else "it took neither")
    _expect(scratch, path, _body(taken[0]))


def _stale_swap(scratch: _Scratch) -> str:
    path = scratch.path()
    stale = replacing(scratch.begin(path))
    if scratch.put(path, b"second", stale) is None:
        raise _BrokenPromiseError("it refused a swap of the version that it had")
    if scratch.put(path, b"third", stale) is not None:
        raise _BrokenPromiseError("it took a swap of a version that was gone")
    _expect(scratch, path, b"second")
    return "it refused the stale one"


def _swap_on_nothing(scratch: _Scratch) -> str:
    version, path = scratch.begin(scratch.path()), scratch.path()
    if scratch.put(path, b"second", replacing(version)) is not None:
        raise _BrokenPromiseError("it took a swap where there is no object")
    _expect(scratch, path, None)
    return "it refused"


def _list_after_write(scratch: _Scratch) -> str:
    paths = [scratch.path() for _ in range(_LISTED)]
    for written, path in enumerate(paths, 1):
        scratch.begin(path)
        if missing := set(paths[:written]) - set(scratch.listed()):
            raise _BrokenPromiseError(f"it did not list {len(missing)} of {written}")
    return f"it listed {_LISTED} of {_LISTED}"


def _expect(scratch: _Scratch, path: str, content: bytes | None) -> None:
    if scratch.read(path) != content:
        raise _BrokenPromiseError("it has other bytes than those that it took")


QUESTIONS: Final[dict[str, Callable[[_Scratch], str]]] = {
    "create twice": _create_twice,
    "two creates that overlap": _creates_overlap,
    "two swaps that overlap": _swaps_overlap,
    "a stale swap": _stale_swap,
    "a swap on nothing": _swap_on_nothing,
    "list after write": _list_after_write,
}
