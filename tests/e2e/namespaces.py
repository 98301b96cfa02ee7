"""Hosts as network namespaces, each on one bridge for each service that it uses.

A plug that is pulled from a bridge is silence: what is sent is lost, and nobody is told. A route
that is gone, or a link that is down, would be an error at once.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

SERVICES = ("kafka", "bucket", "database")


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"


class Host:
    """A namespace with a link to each bridge.

    Attributes:
        within: Words before a command that is to run in it.
    """

    def __init__(self, name: str, number: int) -> None:
        self.within = ("ip", "netns", "exec", name)
        self._name, self._number = name, number

    def lose(self, *services: str) -> None:
        for service in services:
            _ip("link", "set", self._plug(service), "nomaster")

    def find(self, *services: str) -> None:
        for service in services:
            _ip("link", "set", self._plug(service), "master", _bridge(service))

    def address(self, service: str) -> str:
        return address(service, 10 + self._number)

    def _plug(self, service: str) -> str:
        return f"{_bridge(service)}p{self._number}"

    def join(self, service: str, stack: ExitStack) -> None:
        plug, link = self._plug(service), f"{service}0"
        _ip("link", "add", plug, "type", "veth", "peer", "name", link, "netns", self._name)
        stack.callback(_ip, "link", "del", plug)
        _ip("link", "set", plug, "master", _bridge(service), "up")
        _ip("-n", self._name, "addr", "add", f"{self.address(service)}/24", "dev", link)
        _ip("-n", self._name, "link", "set", link, "up")


def _bridge(service: str) -> str:
    # At most 15 characters with its plug; another session has others.
    return f"rm{os.getpid()}{service[0]}"


def address(service: str, host: int = 1) -> str:
    """Return an address on the bridge of a service; 1 is that of the service.

    They are of the range for benchmarks, which no network has.
    """
    network = 3 * (os.getpid() % 80) + SERVICES.index(service)
    return f"198.18.{network}.{host}"


@contextmanager
def hosts(count: int) -> Iterator[list[Host]]:
    """Make some hosts, and the bridges; all of it is gone with the block."""
    if os.geteuid() != 0:
        pytest.skip("only root can make network namespaces")
    if shutil.which("ip") is None:
        pytest.skip("the program ip is not installed (package iproute2)")
    with ExitStack() as stack:
        for service in SERVICES:
            try:
                _ip("link", "add", _bridge(service), "type", "bridge")
            except AssertionError as error:
                pytest.skip(f"no bridge can be made here: {error}")
            stack.callback(_ip, "link", "del", _bridge(service))
            _ip("addr", "add", f"{address(service)}/24", "dev", _bridge(service))
            _ip("link", "set", _bridge(service), "up")
        made = []
        for number in range(count):
            name = f"rmos-{os.getpid()}-{number}"
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "del", name)
            _ip("-n", name, "link", "set", "lo", "up")
            made.append(Host(name, number))
            for service in SERVICES:
                made[-1].join(service, stack)
        yield made
