"""What the doctor asks of this machine: files, clock, disk, store, key, Java and addresses."""

import http.client
import json
import os
import resource
import time
from contextlib import closing, suppress
from enum import StrEnum

from pipeline.api.http.server import listen
from pipeline.api.http.tokens import tokens_for
from pipeline.app.process import OPEN_FILES, store_folder
from pipeline.app.tracing import check_installed, is_traced
from pipeline.broker.connection import is_local
from pipeline.broker.local.runtime import is_downloaded
from pipeline.core.store.identity import STORE_FILE
from pipeline.disk.faults import store_faults
from pipeline.disk.owner import refuse_as_root
from pipeline.disk.store_identity import read_store
from pipeline.disk.volume import is_disk_writable, room_of
from pipeline.errors import AddressTakenError, RmosError, StoreNotReadyError
from pipeline.ledger.keys import load_own_key
from pipeline.legacy.v1.file import V1Store
from pipeline.settings import Settings
from pipeline.storage.contents import opened_contents
from pipeline.storage.ledger_key import key_file_of
from pipeline.storage.store import open_to_read

FEWEST_FILES = 1024
LEAST_FREE_BYTES = 500_000_000
"""A round number: a small run takes a block of 4 KiB, and less for ledger and index."""

_CLOCK_SLACK_SECONDS = 60.0
_PROBE_SECONDS = 3.0
_ANSWER_BYTES = 1000


class State(StrEnum):
    """What an answer means for a start."""

    FINE = "fine"
    NOTE = "note"
    """It would start, but somebody should know."""
    NOT_USABLE = "not usable"
    NOT_ASKED = "not asked"
    """What it depends on is not usable, or the settings do not need it."""


Found = tuple[State, str]


def look_at_files(_settings: Settings) -> Found:
    """Find how many files a service may have open."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = OPEN_FILES if most == resource.RLIM_INFINITY else min(OPEN_FILES, most)
    if count < FEWEST_FILES:
        return State.NOT_USABLE, (
            f"A service may have {count:,} files open: raise the limit (ulimit -n, LimitNOFILE of "
            f"its unit) to {FEWEST_FILES:,} or more."
        )
    return State.FINE, f"A service may have {count:,} files open."


def look_at_clock(settings: Settings) -> Found:
    """Compare the clock with the newest files of the store."""
    now = time.time()
    root = settings.data_dir
    times = [0.0]
    for path in (root / STORE_FILE, *root.glob("index.sqlite3*")):
        with suppress(OSError):
            times.append(path.stat().st_mtime)
    if now < max(times) - _CLOCK_SLACK_SECONDS:
        return State.NOT_USABLE, (
            f"The clock is {max(times) - now:,.0f} s behind the newest file of the store: set it, "
            "and look at what sets it (NTP)."
        )
    return State.FINE, f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(now))}."


def look_at_disk(settings: Settings) -> Found:
    """Find whether the volume can be written, and its room."""
    folder = store_folder(settings)
    if not folder.exists():
        return State.NOT_USABLE, (
            f"There is no folder {folder}: mount its volume, or make a new store with rmos store "
            "init."
        )
    with store_faults(folder):
        room = room_of(folder)
    if not is_disk_writable(folder):
        user = os.geteuid()
        return State.NOT_USABLE, (
            f"The store {folder} cannot be written by user {user}: mount its volume for writing, "
            "free some space, or give this user the rights to all of it. Who only reads needs no "
            "more."
        )
    free = f"{_size(room.free_bytes)} are free"
    if room.has_few_inodes:
        return State.NOTE, (
            f"{free}, but only {room.free_inodes:,} of {room.inodes:,} inodes: each file of the "
            "store takes one; move it to a volume with more."
        )
    if room.free_bytes < LEAST_FREE_BYTES:
        return State.NOTE, f"Only {free} at {folder}: free some space, or move it to a larger one."
    return State.FINE, f"{free} at {folder}."


def _size(size_bytes: int) -> str:
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if size_bytes >= unit:
            return f"{size_bytes / unit:,.1f} {name}"
    return f"{size_bytes / 1000:,.1f} kB"


def look_at_store(settings: Settings) -> Found:
    """Find whether there is a store that a worker of this user could open, with its index."""
    if not settings.is_shared:
        read_store(settings.data_dir)
        refuse_as_root(settings.data_dir)
    with closing(open_to_read(settings)) as store:
        runs, advisories = store.index.count(), store.index.count_advisories()
        return State.FINE, (
            f"{store.name}: store {store.identity.store_id}, epoch {store.identity.epoch}, "
            f"{runs:,} runs, {advisories:,} advisories."
        )


def look_at_bucket(settings: Settings) -> Found:
    """Find whether the bucket answers, and has a store."""
    with opened_contents(settings) as store:
        return State.FINE, f"{store.name} has the store {store.identity.store_id}."


def look_at_v1_store(settings: Settings) -> Found:
    """Find whether the file of v1 can be read."""
    path = settings.run_store_path
    rows = len(V1Store(path).texts())
    return State.FINE, f"v1 mode: {rows:,} runs in {path}."


def look_at_key(settings: Settings) -> Found:
    """Find whether the key is there and that of the store."""
    if not settings.ledger_enabled:
        return (
            State.NOTE,
            "No ledger is written (RMOS_LEDGER_ENABLED): nobody can prove this store.",
        )
    with opened_contents(settings) as store:
        path = key_file_of(settings, store.identity)
        signer = load_own_key(store.logs, path, store.identity.store_id)
        in_force = store.lock.key_in_force()
    if in_force not in {None, str(signer.key)}:
        return State.NOT_USABLE, (
            f"{path} signs as {signer.key}, and the store is signed by {in_force}: put a copy of "
            "the file of that key in its place, and of the files beside it."
        )
    return State.FINE, f"{path} signs as {signer.key}."


def look_at_java(settings: Settings) -> Found:
    """Find what a local broker runs on, where the settings name one."""
    if not is_local(settings):
        return State.NOT_ASKED, "The broker is not the local one of rmos up, so none is started."
    try:
        is_here = is_downloaded(settings.broker_cache_dir)
    except RmosError as error:
        return State.NOTE, f"rmos up and rmos broker start would fail: {error}"
    if not is_here:
        return State.NOTE, "The first rmos up or rmos broker start downloads Apache Kafka (56 MB)."
    return State.FINE, "Java and Apache Kafka are here for rmos up and rmos broker start."


def look_at_api(settings: Settings) -> Found:
    """Find whether page and API could be served."""
    tokens = tokens_for(settings.api_host, settings.api_tokens_file)
    kind = "with tokens" if tokens is not None else "without tokens, for this machine alone"
    return _address(settings.api_host, settings.api_port, f"page and API, {kind}")


def look_at_metrics(settings: Settings) -> Found:
    """Find whether metrics and health could be served."""
    if settings.metrics_port is None:
        return State.NOT_ASKED, "RMOS_METRICS_PORT is unset: no metrics and no health are served."
    if settings.metrics_port == settings.api_port != 0:
        return State.NOTE, (
            f"RMOS_METRICS_PORT and RMOS_API_PORT are both {settings.api_port}: on one host only "
            "one of a worker and the API can start. Give one of them another port."
        )
    return _address(settings.metrics_host, settings.metrics_port, "metrics and health")


def look_at_traces(_settings: Settings) -> Found:
    """Find whether traces could be reported, where the environment names a collector."""
    if not is_traced():
        return State.NOT_ASKED, "No variable names a collector: no traces are reported."
    check_installed()
    return State.FINE, "What reports traces is installed; the collector was not asked."


def _address(host: str, port: int, what: str) -> Found:
    """Find whether a server could listen there, or is one of ours already."""
    try:
        with closing(listen(host, port)):
            return State.FINE, f"{host}:{port} is free for {what}."
    except AddressTakenError as error:
        if not _is_ours(host, port):
            raise StoreNotReadyError(str(error).replace("The API", what.capitalize(), 1)) from error
    return State.FINE, f"{host}:{port} is served by this program already: {what}."


def _is_ours(host: str, port: int) -> bool:
    """Return whether what listens there answers as our services do."""
    asking = http.client.HTTPConnection(host, port, timeout=_PROBE_SECONDS)
    with closing(asking), suppress(OSError, ValueError, http.client.HTTPException):
        asking.request("GET", "/health/live")
        return bool(json.loads(asking.getresponse().read(_ANSWER_BYTES)) == {"live": True})
    return False
