"""How often a batch waits for the server: each wait is a way to another host and back."""

import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

psycopg = pytest.importorskip("psycopg", reason="the extra scale is not installed")

from pipeline.storage.batch_plan import JudgedRecord
from pipeline.storage.batch_store import RejectLimit
from tests.builders import attachment, red_request, run_request
from tests.conftest import Servers
from tests.postgres.servers import VERSIONS, Server, with_tables
from tests.postgres.test_shared_store import shared
from tests.storage.stores import judged_record

PARTITIONS = 12
LIMIT = RejectLimit("rmos.persist")
SOCKET = ".s.PGSQL.5432"


class Proxy:
    """Passes on what is sent, and counts how often the server answered what was sent."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.answers = 0
        self._to = str(server.folder / SOCKET)
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(folder / SOCKET))
        self._listening.listen()
        Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._to)
            Thread(target=self._pass_on, args=(client, server), daemon=True).start()

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        is_asked = False
        with client, server:
            while True:
                ready, _, _ = select.select([client, server], [], [])
                # What was sent first is first passed on.
                source = client if client in ready else server
                content = source.recv(1 << 20)
                if not content:
                    return
                if source is client:
                    is_asked = True
                    server.sendall(content)
                else:
                    self.answers += is_asked
                    is_asked = False
                    client.sendall(content)

    def close(self) -> None:
        self._listening.close()


@contextmanager
def counted(server: Server, folder: Path) -> Iterator[Proxy]:
    proxy = Proxy(server, folder)
    try:
        yield proxy
    finally:
        proxy.close()


def batch(first: int) -> list[JudgedRecord]:
    """Return 504 records of all partitions from `first` on, with rows in every table."""
    requests = [
        (run_request, {}),
        (red_request, {"attachments": [attachment(b"G1 X1", kind="gcode")]}),
        (run_request, {"attachments": [attachment(b"note", kind="debug")]}),
    ]
    records = []
    for number in range(42 * PARTITIONS):
        make, more = requests[0 if number % 16 else 1 + number // 16 % 2]
        request = make(run_id=f"run_{first}_{number}", **more)
        offset = first + number // PARTITIONS
        records.append(judged_record(request, offset, partition=number % PARTITIONS))
    return records


@pytest.mark.parametrize("version", VERSIONS)
def test_a_batch_waits_for_five_answers_and_one_that_is_known_for_two(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, servers: Servers, version: str
) -> None:
    server: Server = servers.get(version)
    # The path of a socket has 107 bytes at most.
    folder = tmp_path_factory.mktemp("pg")
    url = with_tables(server)
    with (
        counted(server, folder) as proxy,
        shared(tmp_path / "store", url.replace(str(server.folder), str(folder))) as store,
    ):
        # The first makes positions and connections.
        store.commit(batch(0), LIMIT)
        following = batch(42)
        before = proxy.answers
        assert {each.kind for each in store.commit(following, LIMIT).outcomes} == {"persisted"}
        made = proxy.answers
        store.commit(following, LIMIT)
        assert (made - before, proxy.answers - made) == (5, 2)
