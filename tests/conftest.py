"""What holds for every test: nothing of the user's own is touched."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import structlog

from pipeline.disk.locks import allow_waits

# Containers and machines of teams often forbid files of byte code. Each process would compile the
# program anew, and each session rewrite six thousand assertions, which takes longer than to read
# all tests.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

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


@pytest.fixture(scope="session", autouse=True)
def own_configuration_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the keys of tests' ledgers in a folder of the session, also in its processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("configuration")))
        yield


MEMORY = Path("/dev/shm")  # Linux's own file system in memory


@pytest.fixture
def memory_path(tmp_path: Path) -> Iterator[Path]:
    """Give a folder in memory, for tests that flush a file system hundreds of times.

    What is left after a fault or a kill does not depend on the disk: the kernel keeps what was
    written. A flush of a disk waits for everything that any program has written to it.
    """
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    with TemporaryDirectory(prefix="rmos-", dir=MEMORY) as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def waits_allowed() -> Iterator[None]:
    """Let the next test wait for locks, also after one that stops a service in this process."""
    yield
    allow_waits()
