"""One PUT over a socket of its own, by a signed URL: its body goes when the caller says so."""

from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Final
from urllib.parse import urlsplit

_TIMEOUT_SECONDS: Final = 30


class SignedPut:
    """A PUT that is begun, gets its body in pieces, and is answered."""

    def __init__(self, url: str, size_bytes: int, headers: Mapping[str, str]) -> None:
        """Connect, and send all but the body.

        Args:
            url: Signed for this PUT.
            size_bytes: Of the whole body.
            headers: Beside its length; none that the signature would have to cover.

        Raises:
            OSError: The server cannot be reached.
        """
        parts = urlsplit(url)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._connection = kind(parts.netloc, timeout=_TIMEOUT_SECONDS)
        try:
            self._connection.putrequest("PUT", f"{parts.path}?{parts.query}")
            for name, value in {**headers, "Content-Length": str(size_bytes)}.items():
                self._connection.putheader(name, value)
            self._connection.endheaders()
        except BaseException:
            self.close()
            raise

    def send(self, piece: bytes) -> None:
        """Send some of the body."""
        # A server may answer and close before it has read all; the answer says why.
        with suppress(BrokenPipeError, ConnectionResetError):
            self._connection.send(piece)

    def answer(self) -> int | None:
        """Return the status of the answer, which comes after the body; None where none came."""
        try:
            return self._connection.getresponse().status
        except (OSError, HTTPException):
            return None

    def close(self) -> None:
        """Let go of the socket."""
        self._connection.close()
