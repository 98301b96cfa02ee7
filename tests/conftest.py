"""What holds for every test: nothing of the user's own is touched."""

import gc
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from shutil import disk_usage
from typing import Any

import hypothesis
import pytest
import structlog

from pipeline.disk.locks import allow_waits

# Containers and machines of teams often forbid files of byte code. Each process would compile the
# program anew, and each session rewrite six thousand assertions, which takes longer than to read
# all tests.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Thousands of tests are read and stay: no collection need look for garbage among them, nor copy the
# pages of them that a forked process shares.
gc.disable()

# Folders of tests are in memory where it has room. What is left after a fault or a kill does not
# depend on the disk: the kernel keeps what was written. A flush of a disk waits for everything that
# any program has written to it.
MEMORY = Path("/dev/shm")  # Linux's own file system in memory
MEMORY_BYTES = 8 << 30
"""More than a session has needed, with its brokers."""

if os.access(MEMORY, os.W_OK) and disk_usage(MEMORY).free >= MEMORY_BYTES:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))

# No test is one of time: a machine may have other work.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")

# structlog's own default draws a traceback with the variables of each frame, which takes seconds of
# a processor; a service shows it as plainly as this.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(
            colors=False, exception_formatter=structlog.dev.plain_traceback
        ),
    ]
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Spread the files that wait for a broker over the run, among those that need a processor.

    One after the other in the order of their paths, all processes would wait in one half of the
    run, and share the cores in the other. The last ones are short: they need no broker.
    """

    def waits(item: pytest.Item) -> bool:
        return item.get_closest_marker("e2e") is not None

    total, before = Counter(map(waits, items)), Counter[bool]()
    places: dict[Path, float] = {}
    for item in items:
        kind = waits(item)
        places.setdefault(item.path, before[kind] / total[kind] * (0.9 if kind else 1))
        before[kind] += 1
    items.sort(key=lambda item: places[item.path])


def pytest_collection_finish() -> None:
    gc.freeze()
    # As seldom as with all tests in the heap, of which a quarter had to be new for a full one.
    gc.set_threshold(700, 10, 1000)
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def own_configuration_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep keys of ledgers and journals of audits in folders of the session, also of processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("configuration")))
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


class Servers:
    """Servers of PostgreSQL of this session, each started when it is first asked for."""

    def __init__(self) -> None:
        self._running: dict[str, Any] = {}
        self.open = ExitStack()

    def get(self, version: str) -> Any:
        """Return the server of this version, or skip."""
        pytest.importorskip("psycopg", reason="the extra scale is not installed")
        from tests.postgres.servers import running

        if version not in self._running:
            self._running[version] = self.open.enter_context(running(version))
        return self._running[version]


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    servers = Servers()
    with servers.open:
        yield servers


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Undo what a command or a service that runs in this process sets for its own log."""
    root, before = logging.getLogger(), structlog.get_config()
    level = root.level
    yield
    if structlog.get_config() == before:
        return
    structlog.configure(**before)
    root.setLevel(level)
    for handler in root.handlers:
        if isinstance(handler.formatter, structlog.stdlib.ProcessorFormatter):
            root.removeHandler(handler)
    for module in list(sys.modules.values()):
        # A logger that was used keeps what was configured then.
        if isinstance(log := vars(module).get("_log"), structlog._config.BoundLoggerLazyProxy):
            vars(log).pop("bind", None)


@pytest.fixture(autouse=True)
def waits_allowed() -> Iterator[None]:
    """Let the next test wait for locks, also after one that stops a service in this process."""
    yield
    allow_waits()
