"""The tokens of the API: a file of their hashes, and the addresses that need none.

A line is `name role sha256hex`, where the hash is that of the token: the file reveals no token.
Empty lines and lines that begin with `#` are skipped. The role `publish` may read too. The file is
read again whenever it has changed: a line that is taken out of it ends its token at once.
"""

import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import structlog
from starlette.datastructures import Headers

from pipeline.api.answers import ApiError
from pipeline.api.http.request_head import READING
from pipeline.core.http_hosts import is_loopback
from pipeline.errors import InputError
from schemas.fields import is_sha256

Role = Literal["read", "publish"]
OPEN_PATHS = frozenset({"/health/live", "/health/ready"})
"""Paths that need no token: probes have none, and these answers hold nothing about runs."""

_FIELDS = 3
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Token:
    """One line of the file."""

    name: str
    role: Role
    sha256: str


class Tokens:
    """The tokens of a file, as it is at each look-up.

    Once the API runs, a file that is not of its form lets nobody in, and the log says so.
    """

    def __init__(self, file: Path) -> None:
        """Read the file.

        Raises:
            InputError: It cannot be read, holds no token, or a line is not of the form.
        """
        self._file = file
        # Before it is read: what changes meanwhile is read again.
        self._state = _state_of(file)
        self._tokens = _read(file)

    def _read_again(self) -> None:
        state = _state_of(self._file)
        if state == self._state:
            return
        self._state, self._tokens = state, ()
        try:
            self._tokens = _read(self._file)
        except InputError as error:
            _log.error("no token is accepted", why=str(error))
        else:
            _log.info("tokens read again", count=len(self._tokens))

    def find(self, token: str) -> Token | None:
        """Return the line of this token; the time of a look-up does not depend on the others."""
        self._read_again()
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
        found = None
        for known in self._tokens:
            # No early end: all are compared, each in constant time.
            if hmac.compare_digest(digest, known.sha256):
                found = known
        return found

    def name_of(self, token: str) -> str | None:
        """Return the name of a token that may read, or None; the log line names it."""
        known = self.find(token)
        if known is None:
            return None
        structlog.contextvars.bind_contextvars(token=known.name)
        return known.name

    def refusal(self, headers: Headers, method: str) -> ApiError | None:
        """Return why a request is refused by its token, or None; the log line names the token."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        known = self.find(token.strip()) if scheme.lower() == "bearer" else None
        if known is None:
            message = "Expected the header Authorization: Bearer with a token that is known here."
            return ApiError(401, "UNAUTHORIZED", message, headers={"WWW-Authenticate": "Bearer"})
        structlog.contextvars.bind_contextvars(token=known.name)
        if known.role == "publish" or method in READING:
            return None
        message = f"This needs a token of the role publish; that of {known.name} may read."
        return ApiError(403, "FORBIDDEN", message)


def tokens_for(host: str, file: Path | None) -> Tokens | None:
    """Return the tokens that an API at `host` asks for; None where it asks for none.

    Raises:
        InputError: It could be reached from elsewhere and there is no file, or the file is not
            of its form.
    """
    if file is not None:
        return Tokens(file)
    if is_loopback(host):
        return None
    raise InputError(
        f"RMOS_API_HOST={host} can be reached from other machines: set RMOS_API_TOKENS_FILE to a "
        "file with a line `name role sha256hex` for each token (roles: read, publish), or bind "
        "to 127.0.0.1."
    )


def _state_of(file: Path) -> tuple[int, ...] | None:
    """Return what differs between two states of a file; None where it is not there."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _read(file: Path) -> tuple[Token, ...]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
        raise InputError(f"RMOS_API_TOKENS_FILE={file} cannot be read: {reason}.") from error
    found = [
        _token(file, number, line)
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not found:
        message = f"RMOS_API_TOKENS_FILE={file} holds no token: expected `name role sha256hex`."
        raise InputError(message)
    return tuple(found)


def _token(file: Path, number: int, line: str) -> Token:
    words = line.split()
    # The line is not shown: it may hold a token instead of its hash.
    where = f"{file}, line {number}"
    if len(words) != _FIELDS:
        raise InputError(f"{where}: expected `name role sha256hex`, found {len(words)} words.")
    name, role, sha256 = words
    if role not in {"read", "publish"}:
        raise InputError(f"{where}: expected the role read or publish.")
    if not is_sha256(sha256):
        raise InputError(f"{where}: expected the SHA-256 of the token as 64 lower-case hex digits.")
    return Token(name, "publish" if role == "publish" else "read", sha256)
