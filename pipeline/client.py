"""The HTTP client: every route of the API, typed by the schemas.

    async with RunsClient("http://127.0.0.1:8080") as client:
        run = await client.submit(request)
        if run.may_cut:
            ...

It needs the extra `client`.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, Self, TypeVar

import aiofiles
import aiofiles.os
import httpx
from pydantic import BaseModel, ValidationError

from pipeline.errors import (
    ArchivedError,
    BrokerError,
    DiskFullError,
    HashMismatchError,
    InputError,
    IntegrityError,
    NotFoundError,
    ReceiptTimeoutError,
    RefusedError,
    RmosError,
    ServiceError,
    StoreError,
)
from schemas.fields import RUN_ID_RULE, is_run_id, is_sha256
from schemas.http_answers import (
    RUNS_PATH,
    AdvisoriesAnswer,
    AttachedAnswer,
    AttachmentsAnswer,
    RunItem,
    RunPageAnswer,
    RunView,
    StoredAttachment,
    SubmittedRun,
    ToolpathAnswer,
    VerificationAnswer,
)
from schemas.run_diff import RunDiff
from schemas.run_filter import RunFilter

PIECE_BYTES: Final = 1 << 20
TIMEOUT_SECONDS: Final = 120.0
"""Longest silence of the API: a POST may wait for the broker and then for the event."""

Shape = TypeVar("Shape", bound=BaseModel)
Request = Mapping[str, Any] | BaseModel | bytes

_ACCEPTED: Final = 202
_BY_CODE: Final[dict[str, type[RmosError]]] = {
    "RUN_ARCHIVED": ArchivedError,
    "ARTIFACT_CORRUPT": IntegrityError,
    "RUN_UNEXPLAINED": IntegrityError,
    "NOT_PROVEN": IntegrityError,
    "ATTACHMENT_CORRUPT": IntegrityError,
    "HASH_MISMATCH": HashMismatchError,
    "DISK_FULL": DiskFullError,
    "BROKER_UNAVAILABLE": BrokerError,
    "STORE_UNAVAILABLE": StoreError,
}
_BY_STATUS: Final[dict[int, type[RmosError]]] = {
    _ACCEPTED: ReceiptTimeoutError,
    404: NotFoundError,
    **dict.fromkeys((401, 403, 409), RefusedError),
    **dict.fromkeys((413, 415, 416, 422), InputError),
}


class RunsClient:
    """Asks one API. Any number of calls may be under way at once, on one event loop.

    An answer that is an error is raised, by each method: NotFoundError (no such run), RefusedError
    (blocked, in conflict, no right), InputError, IntegrityError, BrokerError, StoreError, or
    ServiceError where there is no usable answer. Its `details` are what else the answer holds.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8080",
        *,
        token: str | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        """Prepare; nothing is connected yet.

        Args:
            base_url: Scheme, host and port of the API.
            token: Where it asks for one.
            timeout_seconds: Longest silence of the API.
        """
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._http = httpx.AsyncClient(base_url=base_url, headers=headers, timeout=timeout_seconds)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Disconnect."""
        await self._http.aclose()

    async def submit(self, request: Request) -> SubmittedRun:
        """Ask for a run; look at the answer's `may_cut`.

        Raises:
            RefusedError: It is stored and blocked, or its run_id is another request's.
            InputError: It is not complete; nothing was published.
            ReceiptTimeoutError: No event in time; the same with the run_id and created_at_utc
                of `details` asks again.
            BrokerError: Not confirmed; the same retry is safe.
        """
        return await self._posted(RUNS_PATH, request, SubmittedRun)

    async def list_runs(self, **wanted: str | int | None) -> RunPageAnswer:
        """Return one page of runs, newest first.

        Args:
            **wanted: The fields of `RunFilter`.

        Raises:
            InputError: A field or a value cannot be used.
        """
        try:
            query = RunFilter.of(**wanted).model_dump(exclude_defaults=True)
        except ValueError as error:
            raise InputError(f"INVALID_QUERY: {error}") from error
        return await self._read(RUNS_PATH, RunPageAnswer, query)

    async def all_runs(self, **wanted: str | int | None) -> AsyncIterator[RunItem]:
        """Yield every run that fits, newest first, page by page.

        Raises:
            RmosError: As `list_runs`.
        """
        cursor: str | None = None
        while True:
            page = await self.list_runs(**{**wanted, "cursor": cursor})
            for item in page.items:
                yield item
            cursor = page.next_cursor
            if cursor is None:
                return

    async def get_run(self, run_id: str) -> RunView:
        """Return a run with its advisories.

        Raises:
            IntegrityError: Its file is not what was stored.
        """
        return await self._read(_run(run_id), RunView)

    async def download_run(self, run_id: str) -> bytes:
        """Return the exact bytes of a run's artifact; their hash is compared with the answer's.

        Raises:
            IntegrityError: Its file, or what arrived, is not what was stored.
        """
        answer = await self._asked("GET", f"{_run(run_id)}/download")
        expected = answer.headers.get("etag", "").strip('"')
        if (found := hashlib.sha256(answer.content).hexdigest()) != expected:
            raise IntegrityError(f"Expected bytes with SHA-256 {expected}, {found} arrived.")
        return answer.content

    async def diff(self, a: str, b: str) -> RunDiff:
        """Return how run `b` differs from run `a`."""
        return await self._read(f"{RUNS_PATH}/diff", RunDiff, {"a": a, "b": b})

    async def attach_advisory(self, run_id: str, advisory: Request) -> AttachedAnswer:
        """Attach an advisory to a run.

        Raises:
            RefusedError: Its advisory_id is another advisory's.
            InputError: It is not of its form.
            ReceiptTimeoutError: No event in time; the same request asks again.
        """
        return await self._posted(f"{_run(run_id)}/attach-advisory", advisory, AttachedAnswer)

    async def toolpath(self, run_id: str) -> ToolpathAnswer:
        """Return the moves of a run's program, as programmed.

        Raises:
            NotFoundError: Its program is withheld, or it brings none.
            IntegrityError: Its file or its attachment is not what was stored.
        """
        return await self._read(f"{_run(run_id)}/toolpath", ToolpathAnswer)

    async def advisories(self, run_id: str) -> AdvisoriesAnswer:
        """Return the advisories of a run, oldest first."""
        return await self._read(f"{_run(run_id)}/advisories", AdvisoriesAnswer)

    async def attachments(self, run_id: str) -> AttachmentsAnswer:
        """Return the attachments of a run."""
        return await self._read(f"{_run(run_id)}/attachments", AttachmentsAnswer)

    async def verify_attachments(self, run_id: str) -> VerificationAnswer:
        """Let the API read every byte of a run's attachments."""
        return await self._read(f"{_run(run_id)}/attachments/verify", VerificationAnswer)

    async def download_attachment(self, run_id: str, sha256: str, to: Path | BinaryIO) -> int:
        """Write an attachment as it arrives; return its size in bytes.

        A legacy blob, whose name is the hash of its canonical form, is what the API has checked.

        Args:
            run_id: A run that names it, itself or by one of its advisories.
            sha256: Its name.
            to: A file to create, which is removed where the download fails, or one that is open.

        Raises:
            OSError: The file exists, or cannot be written.
            NotFoundError: The run is not there, or names no such blob.
            IntegrityError: The blob is not what was stored, or broke off.
        """
        return await self._downloaded(f"{_run(run_id)}/{_blob(sha256)}", to)

    async def download_evidence(self, run_id: str, to: Path | BinaryIO) -> int:
        """Write the evidence about a run, a zip file, as it arrives; return its size in bytes.

        Args:
            run_id: The run.
            to: A file to create, which is removed where the download fails, or one that is open.

        Raises:
            OSError: The file exists, or cannot be written.
            IntegrityError: The run is not what was stored, its ledger does not prove it, or the
                download broke off.
        """
        return await self._downloaded(f"{_run(run_id)}/evidence", to)

    async def _downloaded(self, path: str, to: Path | BinaryIO) -> int:
        size_bytes = 0
        async with self._streamed(path) as answer, _writing(to) as write:
            async for piece in answer.aiter_bytes(PIECE_BYTES):
                await write(piece)
                size_bytes += len(piece)
        return size_bytes

    async def upload(self, file: Path, sha256: str | None = None) -> StoredAttachment:
        """Store a file as a blob, read piece by piece.

        Args:
            file: What to upload.
            sha256: Its hash where it is known; else the file is read once more before.

        Raises:
            HashMismatchError: The file has another hash.
            DiskFullError: The store has no room for it.
            InputError: It is too large.
            OSError: It cannot be read.
        """
        name = await asyncio.to_thread(_sha256_of, file) if sha256 is None else sha256
        headers = {"Content-Length": str((await aiofiles.os.stat(file)).st_size)}
        path = f"{RUNS_PATH}/{_blob(name)}"
        answer = await self._asked("PUT", path, content=_pieces(file), headers=headers)
        return _parsed(answer, StoredAttachment)

    async def is_ready(self) -> bool:
        """Ask whether the API can do its work.

        Raises:
            ServiceError: It does not answer.
        """
        with _reaching(self._http):
            return (await self._http.get("/health/ready")).is_success

    async def _read(
        self, path: str, shape: type[Shape], query: Mapping[str, str | int] | None = None
    ) -> Shape:
        return _parsed(await self._asked("GET", path, params=dict(query or {})), shape)

    async def _posted(self, path: str, request: Request, shape: type[Shape]) -> Shape:
        headers = {"Content-Type": "application/json"}
        answer = await self._asked("POST", path, content=_encoded(request), headers=headers)
        return _parsed(answer, shape)

    async def _asked(self, method: str, path: str, **options: Any) -> httpx.Response:  # noqa: ANN401
        with _reaching(self._http):
            answer = await self._http.request(method, path, **options)
        _raise_error(answer)
        return answer

    @asynccontextmanager
    async def _streamed(self, path: str) -> AsyncIterator[httpx.Response]:
        with _reaching(self._http):
            async with self._http.stream("GET", path) as answer:
                if not answer.is_success:
                    await answer.aread()
                _raise_error(answer)
                try:
                    yield answer
                except httpx.RemoteProtocolError as error:
                    message = "The download broke off: the blob is not what was stored."
                    raise IntegrityError(message) from error


@contextmanager
def _reaching(http: httpx.AsyncClient) -> Iterator[None]:
    try:
        yield
    except httpx.HTTPError as error:
        message = f"The API at {http.base_url} does not answer ({type(error).__name__})."
        raise ServiceError(message) from error


def _parsed(answer: httpx.Response, shape: type[Shape]) -> Shape:
    try:
        # A later server may add a field.
        return shape.model_validate_json(answer.content, extra="ignore")
    except ValidationError as error:
        message = f"The API answered something else than {shape.__name__}: update this client."
        raise ServiceError(message) from error


def _raise_error(answer: httpx.Response) -> None:
    if answer.is_success and answer.status_code != _ACCEPTED:
        return
    document = _document(answer)
    code = str(document.get("error", ""))
    kind = _BY_CODE.get(code) or _BY_STATUS.get(answer.status_code, ServiceError)
    message = document.get("message", f"The API answered {answer.status_code}.")
    raise kind(f"{code}: {message}" if code else str(message), details=document)


def _document(answer: httpx.Response) -> dict[str, Any]:
    try:
        found = json.loads(answer.content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _encoded(request: Request) -> bytes:
    if isinstance(request, bytes):
        return request
    document = (
        request.model_dump(exclude_unset=True) if isinstance(request, BaseModel) else dict(request)
    )
    try:
        return json.dumps(document, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"The request has a value that JSON cannot express: {error}.") from error


def _run(run_id: str) -> str:
    # What is no name of a run must not become another path.
    if not is_run_id(run_id):
        raise NotFoundError(f"RUN_NOT_FOUND: {run_id!r:.120} cannot name a run: {RUN_ID_RULE}.")
    return f"{RUNS_PATH}/{run_id}"


def _blob(sha256: str) -> str:
    if not is_sha256(sha256):
        raise NotFoundError(f"NOT_FOUND: {sha256!r:.120} cannot name a blob: 64 of 0-9 and a-f.")
    return f"attachments/{sha256}"


def _sha256_of(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


async def _pieces(file: Path) -> AsyncIterator[bytes]:
    async with aiofiles.open(file, "rb") as opened:
        while piece := await opened.read(PIECE_BYTES):
            yield piece


@asynccontextmanager
async def _writing(to: Path | BinaryIO) -> AsyncIterator[Callable[[bytes], Awaitable[int]]]:
    """Yield what writes a piece in a thread: into a new file, or into one that is open."""
    if isinstance(to, Path):
        async with aiofiles.open(to, "xb") as file:
            try:
                yield file.write
            except BaseException:
                await aiofiles.os.remove(to)
                raise
    else:
        yield lambda piece: asyncio.to_thread(to.write, piece)
