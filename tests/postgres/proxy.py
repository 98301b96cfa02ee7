"""A proxy before a server of PostgreSQL: it counts answers and cuts connections at a COMMIT."""

import select
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

from tests.postgres.servers import Server

SOCKET = ".s.PGSQL.5432"

BEFORE, SENT, DONE = FAULTS = (
    "cut before the COMMIT was sent",
    "cut after the COMMIT was sent",
    "cut after the server had committed",
)

_COMMIT = b"COMMIT\0"


class _Side:
    """What one side of a connection sends, message by message.

    (postgresql.org/docs/current/protocol-message-formats.html)
    """

    def __init__(self, *, has_kinds: bool) -> None:
        self._rest = b""
        self._head = int(has_kinds)

    def messages(self, content: bytes) -> Iterator[bytes]:
        """Yield whole messages."""
        self._rest += content
        while len(self._rest) >= self._head + 4:
            length = self._head + int.from_bytes(self._rest[self._head : self._head + 4])
            if len(self._rest) < length:
                return
            message, self._rest, self._head = self._rest[:length], self._rest[length:], 1
            yield message


class _Client(_Side):
    """What a client sends.

    A statement that is run often is prepared, and has its words in its first message alone.
    """

    def __init__(self) -> None:
        super().__init__(has_kinds=False)  # The first message has none.
        self._names: set[bytes] = set()

    def commits(self, message: bytes) -> bool:
        """Return whether a message asks for a COMMIT, or begins to."""
        kind, body = message[:1], message[5:]
        if kind == b"P":
            name, _, words = body.partition(b"\0")
            if words.startswith(_COMMIT):
                self._names.add(name)
                return True
            self._names.discard(name)
        # The first name is that of a portal.
        is_named = kind == b"B" and body.split(b"\0", 2)[1] in self._names
        return is_named or (kind == b"Q" and body == _COMMIT)


class Proxy:
    """Passes on what is sent, to a socket in the folder of a server, from one in another folder.

    Attributes:
        answers: How often the server had answered all that was asked: part of an answer, while the
            client still asks, is none.
        choose: Which fault the next COMMIT meets; None for none.
        faults: How many met each.
    """

    def __init__(self, server: Server, folder: Path) -> None:
        self.answers = 0
        self.choose: Callable[[], str | None] = lambda: None
        self.faults: Counter[str] = Counter()
        self._folders = str(server.folder), str(folder)
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(folder / SOCKET))
        self._listening.listen()
        Thread(target=self._accept, daemon=True).start()

    def url(self, url: str) -> str:
        """Return the URL of a database by way of this proxy."""
        return url.replace(*self._folders)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(f"{self._folders[0]}/{SOCKET}")
            Thread(target=self._pass_on, args=(client, server), daemon=True).start()

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        fault, asked, answered = None, _Client(), _Side(has_kinds=True)
        waiting = 1  # The first message is a question too.
        # Either side may be gone.
        with client, server, suppress(OSError):
            while True:
                ready, _, _ = select.select([client, server], [], [])
                # What was sent first is first passed on.
                source = client if client in ready else server
                content = source.recv(1 << 20)
                if not content:
                    return
                if source is server:
                    for message in answered.messages(content):
                        # Ready for another question, or for the rows of a COPY.
                        if message[:1] in {b"Z", b"G"}:
                            waiting = max(waiting - 1, 0)
                            self.answers += waiting == 0
                    if fault != DONE:
                        client.sendall(content)
                    elif _COMMIT in content:
                        return
                    continue
                for message in asked.messages(content):
                    if fault is None and asked.commits(message):
                        fault = self._meet()
                    if fault == BEFORE:
                        return
                    waiting += message[:1] in {b"S", b"Q"}
                    server.sendall(message)
                    if fault == SENT and message[:1] in {b"S", b"Q"}:
                        return

    def _meet(self) -> str | None:
        fault = self.choose()
        self.faults.update([fault] if fault else [])
        return fault

    def close(self) -> None:
        self._listening.close()


@contextmanager
def standing_before(server: Server, folder: Path) -> Iterator[Proxy]:
    """Let a proxy stand before a server while the block runs.

    Args:
        server: Which.
        folder: With a short path: that of a socket has 107 bytes at most.
    """
    proxy = Proxy(server, folder)
    try:
        yield proxy
    finally:
        proxy.close()
