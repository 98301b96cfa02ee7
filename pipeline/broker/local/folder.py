"""The local broker's folder: its lock, its state, its properties and its log."""

import base64
import errno
import fcntl
import json
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pipeline.broker.local.loopback import HOST
from pipeline.errors import BrokerError
from pipeline.topics import DEAD_LETTER_MESSAGE_LIMIT_BYTES

LOCK_WAIT_SECONDS = 0.5
"""Longer than anybody holds the lock only to look whether it is held."""


BROKER_CLASS = "kafka.Kafka"
"""Main class of the broker; the path of its properties follows it on the command line."""


@dataclass(frozen=True, slots=True)
class BrokerState:
    """What the state file holds of a local broker, also of one that ended.

    Attributes:
        pid: Process id of its Java, None while one is being started. It means nothing unless the
            folder is locked.
        port: Port of the clients' listener.
        controller_port: Port of the controller's listener.
        cluster_id: Id of its cluster, the same for as long as its folder lives.
    """

    pid: int | None
    port: int
    controller_port: int
    cluster_id: str

    @property
    def bootstrap_servers(self) -> str:
        """Where clients connect, `127.0.0.1:PORT`."""
        return f"{HOST}:{self.port}"


class LocalFolder:
    """One folder, at most one broker.

    The lock is inherited by the broker's process and held by it alone, so the kernel frees it
    when that process ends, however it ends. Locked means that a broker lives; a process id
    that a stale file names is not believed.

    Attributes:
        root: The folder, absolute.
        data: What Kafka stores.
        properties: Kafka's configuration, written anew at each start.
        log: What Kafka prints, of all starts.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().resolve()
        self.data = self.root / "data"
        self.properties = self.root / "server.properties"
        self.log = self.root / "kafka.log"
        self._state = self.root / "broker.json"
        self._lock = self.root / "lock"

    @contextmanager
    def locked(self) -> Iterator[int]:
        """Lock the folder and give the descriptor that a broker has to inherit.

        Raises:
            BrokerError: A broker lives here.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            deadline = time.monotonic() + LOCK_WAIT_SECONDS
            while not _lock_now(descriptor, fcntl.LOCK_EX):
                if time.monotonic() > deadline:
                    raise self._in_use()
                time.sleep(0.02)
            yield descriptor
        finally:
            os.close(descriptor)

    def is_locked(self) -> bool:
        """Return whether a broker lives here, or is about to."""
        try:
            descriptor = os.open(self._lock, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            return not _lock_now(descriptor, fcntl.LOCK_SH)
        finally:
            os.close(descriptor)

    def running(self) -> BrokerState | None:
        """Return the broker that lives here, None where none does."""
        state = self.remembered() if self.is_locked() else None
        return state if state and state.pid is not None and self._is_ours(state.pid) else None

    def remembered(self) -> BrokerState | None:
        """Return what the state file holds, None where it is missing or not ours."""
        try:
            return BrokerState(**json.loads(self._state.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def remember(self, state: BrokerState) -> None:
        """Replace the state file."""
        part = self._state.with_suffix(".part")
        part.write_text(json.dumps(asdict(state)) + "\n", encoding="utf-8")
        part.replace(self._state)

    def forget_pid(self) -> None:
        """Note that the last broker is gone; ports and cluster id stay."""
        state = self.remembered()
        if state is not None:
            self.remember(replace(state, pid=None))

    def cluster_id(self) -> str | None:
        """Return the id that the data were formatted with, None before that."""
        try:
            lines = (self.data / "meta.properties").read_text(encoding="latin-1").splitlines()
        except FileNotFoundError:
            return None
        found = [line.removeprefix("cluster.id=") for line in lines if "cluster.id=" in line]
        return found[0].strip() if found else None

    def log_size_bytes(self) -> int:
        """Return the size of the log: where the next start's lines begin."""
        return self.log.stat().st_size if self.log.exists() else 0

    def log_lines(self, start_bytes: int) -> list[str]:
        """Return the log's lines that are not empty, from `start_bytes` on."""
        try:
            with self.log.open("rb") as log:
                log.seek(start_bytes)
                text = log.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return []
        return [line.strip() for line in text.splitlines() if line.strip()]

    def _is_ours(self, pid: int) -> bool:
        """Return whether `pid` runs with our properties: the lock alone may be a start's."""
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            # macOS has no such file, and the lock is evidence enough; Linux has no process.
            return not Path("/proc/self/cmdline").exists()
        return os.fsencode(self.properties) in command

    def _in_use(self) -> BrokerError:
        state = self.remembered()
        who = (
            f"process {state.pid} at {state.bootstrap_servers}"
            if state and state.pid
            else "starting"
        )
        return BrokerError(
            f"Another broker already uses {self.root} ({who}): "
            "use that one, or stop it with `rmos broker stop`."
        )


def folders_in_use() -> list[Path]:
    """Return the folders of the local brokers that run on this machine, as far as it shows them."""
    return [found for entry in Path("/proc").glob("[0-9]*") if (found := _folder_of(entry))]


def _folder_of(process: Path) -> Path | None:
    """Return the folder of the local broker that `process` is, None where it is another program."""
    try:
        arguments = (process / "cmdline").read_bytes().split(b"\0")
        properties = Path(os.fsdecode(arguments[arguments.index(BROKER_CLASS.encode()) + 1]))
    except (OSError, ValueError, IndexError):
        return None
    folder = LocalFolder(properties.parent)
    return folder.root if folder.properties == properties and folder.running() else None


@contextmanager
def folder_errors(root: Path) -> Iterator[None]:
    """Turn an OSError of the folder into a BrokerError that names the way out.

    Raises:
        BrokerError: The folder cannot be written or its disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = f"No space left for the local broker in {root}: free some and start again."
        else:
            message = f"The local broker cannot use {root} ({error.strerror or error})."
        raise BrokerError(message) from error


def new_cluster_id() -> str:
    """Return a random cluster id that Kafka's tools accept as an argument."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # `format` takes a leading dash for the beginning of an option.
        if not text.startswith("-"):
            return text


def server_properties(
    data: Path, port: int, controller_port: int, others: Mapping[str, str] | None = None
) -> str:
    """Return the configuration of one node on loopback that stores in `data`.

    `others` stand in place of ours, or besides them.

    Raises:
        BrokerError: The path holds a comma, with which Kafka separates folders.
    """
    if "," in str(data):
        raise BrokerError(f"Kafka cannot store in {data}: use a path without a comma.")
    limit_bytes = str(DEAD_LETTER_MESSAGE_LIMIT_BYTES)
    values = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        # The voter's address is not stored, so that another controller port is no new voter.
        "controller.quorum.voters": f"1@{HOST}:{controller_port}",
        "log.dirs": str(data),
        # After a crash the controller waits this long for the node that it remembers before it
        # takes the new one: 4 s in place of 9. Fencing by mistake costs one heartbeat.
        "broker.session.timeout.ms": "4000",
        "broker.heartbeat.interval.ms": "1000",
        "auto.create.topics.enable": "false",
        # One node has no replica that could bring back what a power cut takes.
        "log.flush.interval.messages": "1",
        "message.max.bytes": limit_bytes,
        "replica.fetch.max.bytes": limit_bytes,
        "group.initial.rebalance.delay.ms": "0",
        "offsets.topic.num.partitions": "4",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
    }
    return "".join(
        f"{name}={_escaped(value)}\n" for name, value in (values | dict(others or {})).items()
    )


def _escaped(value: str) -> str:
    """Escape what `java.util.Properties` would take for something else."""
    escaped = value.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    units = escaped.encode("utf-16-be")
    pairs = (int.from_bytes(units[at : at + 2], "big") for at in range(0, len(units), 2))
    return "".join(
        chr(unit) if ord(" ") <= unit <= ord("~") else f"\\u{unit:04x}" for unit in pairs
    )


def _lock_now(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
