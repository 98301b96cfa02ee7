"""Ports of this machine's loopback address: which are free, and which broker answers."""

import random
import socket
import struct
from itertools import count
from typing import BinaryIO

HOST = "127.0.0.1"

# Below the ranges that kernels hand to outgoing connections (Linux from 32768, macOS from
# 49152): nothing can take the port by chance between our look and Kafka's bind, and no probe
# of a port without a listener can be connected to itself.
FIRST_FREE_PORT, LAST_FREE_PORT = 15_000, 32_000

# From a place that other processes hardly share, each port once: one that was given out may not
# be bound yet, and would still look free.
_PORTS = LAST_FREE_PORT + 1 - FIRST_FREE_PORT
_numbers = count(random.SystemRandom().randrange(_PORTS))

# Metadata request, version 2, no topics: api key, version, correlation, client id, topics.
_METADATA = struct.pack(">hhih4si", 3, 2, 1, 4, b"rmos", 0)


def is_free(port: int) -> bool:
    """Return whether a server could listen on `port` now."""
    with socket.socket() as probe:
        # As Java does: connections of a server that just ended are no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port(*, but: int | None = None) -> int:
    """Return a port that is free now, and which is not `but`.

    Raises:
        OSError: None was found.
    """
    for _ in range(1000):
        port = FIRST_FREE_PORT + next(_numbers) % _PORTS
        if port != but and is_free(port):
            return port
    raise OSError(f"no free port from {FIRST_FREE_PORT} to {LAST_FREE_PORT} at {HOST}")


def cluster_id_at(port: int, *, timeout_seconds: float = 2.0) -> str | None:
    """Ask the broker at `port` for its cluster id.

    Returns:
        The id, or None while nothing answers or the broker does not show itself as ready.
    """
    try:
        with socket.create_connection((HOST, port), timeout_seconds) as connection:
            connection.sendall(struct.pack(">i", len(_METADATA)) + _METADATA)
            with connection.makefile("rb") as answer:
                return _read_cluster_id(answer)
    except (OSError, struct.error, UnicodeDecodeError):
        return None


def _read_cluster_id(answer: BinaryIO) -> str | None:
    _size, _correlation, brokers = struct.unpack(">iii", answer.read(12))
    for _ in range(brokers):
        answer.read(4)  # node id
        _read_string(answer)  # host
        answer.read(4)  # port
        _read_string(answer)  # rack
    cluster_id = _read_string(answer)
    # A broker that is fenced still answers, but lists no broker and takes no records.
    return cluster_id if brokers > 0 else None


def _read_string(answer: BinaryIO) -> str | None:
    (length,) = struct.unpack(">h", answer.read(2))
    return answer.read(length).decode() if length >= 0 else None
