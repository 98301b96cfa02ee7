"""A small S3 in this process, whole, or with one promise that it does not keep."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from hashlib import md5
from http.server import BaseHTTPRequestHandler
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.bucket.relay import relaying


class SmallS3:
    """One bucket. It looks at a condition when the whole body is there, under a lock.

    Attributes:
        faults: What it does not do as it should; the names are those of the tests.
        objects: What it holds, by key.
    """

    def __init__(self, *faults: str) -> None:
        self.faults = set(faults)
        self.objects: dict[str, bytes] = {}
        self.listed: dict[str, bytes] = {}
        self.lost: set[str] = set()
        self._lock = Lock()

    def refusal(self, key: str, headers: Any) -> int | None:
        """Return the status of a PUT that may not be; None where it may."""
        if always := [each for each in self.faults if each.startswith("always ")]:
            return int(always[0].removeprefix("always "))
        here = self.objects.get(key)
        none_match, match = headers.get("If-None-Match"), headers.get("If-Match")
        if "conditions unknown" in self.faults and (none_match or match):
            return 501
        if none_match and here is not None and "creates ignored" not in self.faults:
            return 412
        if match and here is None:
            return None if "swap on nothing" in self.faults else 404
        if match and match != etag(here or b"") and "swaps ignored" not in self.faults:
            return 412
        return None

    def put(self, key: str, headers: Any, body: Iterator[bytes]) -> int:
        """Read the body and store it, or do not."""
        kind = "creates" if headers.get("If-None-Match") else "swaps"
        if f"{kind} looked at before" in self.faults:
            status = self.refusal(key, headers)
            content = b"".join(body)
            with self._lock:
                return status or self._store(key, content)
        content = b"".join(body)
        with self._lock:
            return self.refusal(key, headers) or self._store(key, content)

    def _store(self, key: str, content: bytes) -> int:
        if "lists late" not in self.faults:
            self.listed = self.objects
        else:
            self.listed = dict(self.objects)
        self.objects[key] = content
        return 200


def etag(content: bytes) -> str:
    return f'"{md5(content, usedforsecurity=False).hexdigest()}"'


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    s3: SmallS3

    def log_message(self, *_: Any) -> None:
        pass

    @property
    def key(self) -> str:
        return unquote(urlsplit(self.path).path).lstrip("/").partition("/")[2]

    def do_PUT(self) -> None:
        status = self.s3.put(self.key, self.headers, self._body())
        # What is signed by its URL is not sent again.
        is_sent_again = "Authorization" in self.headers and self.key not in self.s3.lost
        if "answers lost" in self.s3.faults and is_sent_again:
            self.s3.lost.add(self.key)
            self._answer(500, b"", {})
            return
        content = self.s3.objects.get(self.key, b"")
        self._answer(status, b"", {"ETag": etag(content)} if status == 200 else {})

    def _body(self) -> Iterator[bytes]:
        left = int(self.headers["Content-Length"])
        while left and (piece := self.rfile.read(min(left, 4096))):
            left -= len(piece)
            yield piece

    def do_GET(self) -> None:
        if not self.key:
            self._answer(200, self._listing(), {})
            return
        content = self.s3.objects.get(self.key)
        if content is None:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>", {})
        else:
            self._answer(200, content, {"ETag": etag(content), **MODIFIED})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_DELETE(self) -> None:
        self.s3.objects.pop(self.key, None)
        self._answer(204, b"", {})

    def _listing(self) -> bytes:
        prefix = parse_qs(urlsplit(self.path).query)["prefix"][0]
        found = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(content)}</Size>"
            f"<LastModified>2026-01-01T00:00:00Z</LastModified><ETag>{etag(content)}</ETag>"
            "</Contents>"
            for key, content in sorted(self.s3.listed.items())
            if key.startswith(prefix)
        )
        return (
            f"<ListBucketResult><IsTruncated>false</IsTruncated>{found}</ListBucketResult>".encode()
        )

    def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


MODIFIED = {"Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}


def serving(s3: SmallS3) -> AbstractContextManager[str]:
    """Serve it while the block runs; give its address."""
    return relaying(type("Handler", (_Handler,), {"s3": s3}))
