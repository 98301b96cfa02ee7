"""Ledgers to test on: leaves, what is on disk, and system calls that can be watched or failed."""

from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

from pipeline.disk.log_store import DiskLogs, open_to_write
from pipeline.disk.system_calls import LogSystemCalls, SystemCalls
from pipeline.ledger.leaf import LedgerLeaf, parse_leaf
from pipeline.ledger.log_id import LogId, signer_name
from pipeline.ledger.reader import LogReader
from pipeline.ledger.tlog.merkle import leaf_hash, root_of_hashes
from pipeline.ledger.tlog.notes import NoteSigner
from pipeline.ledger.tlog.tiles import Tile, tiles_of_append
from pipeline.ledger.writer import Ledger
from tests.ledger.tlog.signers import signer
from tests.storage import stores
from tests.storage.stores import WatchedCalls, open_unnamed_unsupported, watched

STORE_ID = "0" * 32
TOPIC = "rmos.runs.requests"
LOG = LogId(1, TOPIC, 0)
OTHER_LOG = LogId(1, TOPIC, 10)
SIGNER = signer(signer_name(STORE_ID))
KEYS = [SIGNER.key]


def leaves(start: int, end: int, log: LogId = LOG, *, body: str = "body") -> list[LedgerLeaf]:
    """Return a leaf for each offset from `start` to `end`."""
    return [leaf(offset, log, body=body) for offset in range(start, end)]


def leaf(offset: int, log: LogId = LOG, *, body: str = "body") -> LedgerLeaf:
    """Return the leaf of one offset; each fourth is of a rejected record."""
    digest = sha256(f"{body} {log.partition} {offset}".encode()).hexdigest()
    if offset % 4 == 3:
        return LedgerLeaf(
            "rejected", log.topic, log.partition, offset, 7, digest, code="INVALID_JSON"
        )
    run_id = f"run_{digest[:32]}"
    return LedgerLeaf(
        "run",
        log.topic,
        log.partition,
        offset,
        timestamp_ms=1_766_066_602_000 + offset,
        body_sha256=digest,
        run_id=run_id,
        path=f"runs/2025-12-18/{run_id}.json",
        sha256=digest[::-1],
        size_bytes=2965,
    )


def ledger(
    root: Path, calls: LogSystemCalls | None = None, signers: Sequence[NoteSigner] = (SIGNER,)
) -> Ledger:
    """Open the ledger at `root`, as a process that has just started."""
    return Ledger(*open_to_write(root, calls), STORE_ID, signers)


def reader(root: Path, log: LogId = LOG) -> LogReader:
    """Open a log at its checkpoint."""
    return LogReader.open(DiskLogs(root), log, STORE_ID, KEYS)


def on_disk(root: Path) -> dict[str, bytes | None]:
    """Return all that lies in the ledger by path: the bytes of files, None for folders."""
    return {
        path.relative_to(root).as_posix(): None if path.is_dir() else path.read_bytes()
        for path in sorted((root / "ledger").rglob("*"))
    }


def check_whole(root: Path, log: LogId = LOG) -> LogReader:
    """Check a log as an auditor does, from its files: every leaf, every tile, the signed root."""
    opened = reader(root, log)
    entries = list(opened.entries())
    assert len(entries) == opened.size
    assert root_of_hashes(map(leaf_hash, entries)) == opened.checkpoint.root
    for tile in tiles_of_append(0, opened.size):
        assert (root / log.path / str(tile)).is_file(), tile
    offsets = [parse_leaf(entry).offset for entry in entries]
    assert offsets == sorted(set(offsets))
    return opened


def damage(path: Path, place: int = -1) -> None:
    """Flip a bit of a file behind the program's back."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.chmod(0o644)
    path.write_bytes(bytes(content))
    path.chmod(0o444)


def rewrite_log(root: Path, new: list[bytes], signer_: NoteSigner = SIGNER) -> None:
    """Write a whole log of other leaves, signed with the key that was stolen."""
    from pipeline.ledger.tlog.append import TreeAppender
    from pipeline.ledger.tlog.checkpoints import Checkpoint, sign_checkpoint

    tree = TreeAppender()
    tree.extend(new)
    folder = root / LOG.path
    for tile, content in tree.new_tiles().items():
        path = folder / str(tile)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(content)
    checkpoint = Checkpoint(LOG.origin(STORE_ID), tree.size, tree.root())
    (folder / "checkpoint").unlink()
    (folder / "checkpoint").write_bytes(sign_checkpoint(checkpoint, [signer_]))


def tile_path(root: Path, tile: Tile, log: LogId = LOG) -> Path:
    """Return where a tile lies."""
    return root / log.path / str(tile)


CALL_NAMES = tuple(
    name
    for calls in (SystemCalls, LogSystemCalls)
    for name in vars(calls)
    if not name.startswith("_") and name != "write_all"
)


class WatchedLogCalls(WatchedCalls, LogSystemCalls):
    """Those of a ledger too."""


class NamedLogCalls(WatchedLogCalls):
    """Those of a file system without O_TMPFILE and syncfs."""


for _name in CALL_NAMES:
    setattr(WatchedLogCalls, _name, watched(LogSystemCalls, _name))


NamedLogCalls.open_unnamed = open_unnamed_unsupported  # type: ignore[method-assign]

WRITERS = {"group commit": WatchedLogCalls, "fallback": NamedLogCalls}


def in_child(work: Callable[[], None]) -> int:
    """Do `work` in a forked child; return its wait status."""

    def quietly() -> bytes:
        work()
        return b""

    return stores.in_child(quietly)[0]
