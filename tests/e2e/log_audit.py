"""What the logs of a store say, read from their public formats without the program under test."""

import base64
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from pipeline.settings import Settings
from tests.e2e.kafka_reading import Place

WIDTH = 256


@dataclass(slots=True)
class LogAudit:
    """The leaves of all logs of one topic, and what is wrong with the logs."""

    leaves: dict[Place, dict[str, Any]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def audit_logs(settings: Settings, topic: str, epoch: int = 1) -> LogAudit:
    """Read every log of `topic`: signature, root, every tile, and nothing beside them."""
    audit = LogAudit()
    store_id = json.loads((settings.data_dir / "store.json").read_bytes())["store_id"]
    key = public_key(settings, store_id)
    for folder in sorted((settings.data_dir / "ledger" / str(epoch)).glob(f"{topic}-*")):
        partition = int(folder.name.rpartition("-")[2])
        origin = f"rmos/{store_id}/{epoch}/{topic}/{partition}"
        try:
            leaves = whole_log(folder, origin, key)
        except (AssertionError, InvalidSignature, OSError, ValueError) as error:
            audit.faults.append(f"{folder.name}: {error!r}")
            continue
        offsets = [leaf["source"]["offset"] for leaf in leaves]
        if offsets != sorted(set(offsets)):
            audit.faults.append(f"{folder.name}: offsets twice or out of order")
        for leaf in leaves:
            if (leaf["source"]["topic"], leaf["source"]["partition"]) != (topic, partition):
                audit.faults.append(f"{folder.name}: a leaf of another log")
            audit.leaves[Place(partition, leaf["source"]["offset"])] = leaf
    return audit


def public_key(settings: Settings, store_id: str) -> Ed25519PublicKey:
    path = settings.ledger_key_file
    if path is None:
        path = Path(os.environ["XDG_CONFIG_HOME"], "rmos", f"{store_id}.pem")
    vkey = path.with_name(f"{path.name}.vkey").read_text(encoding="utf-8").strip()
    return Ed25519PublicKey.from_public_bytes(base64.b64decode(vkey.split("+", 2)[2])[1:])


def whole_log(folder: Path, origin: str, key: Ed25519PublicKey) -> list[dict[str, Any]]:
    """Return the leaves of a log that is whole, and fail where it is not."""
    note = (folder / "checkpoint").read_text(encoding="utf-8")
    text, _, signatures = note.rpartition("\n\n")
    signature = base64.b64decode(signatures.split(" ")[2])
    key.verify(signature[4:], f"{text}\n".encode())
    found_origin, size, root = text.split("\n")
    assert found_origin == origin
    entries = list(read_entries(folder, int(size)))
    hashes = [hashlib.sha256(b"\0" + entry).digest() for entry in entries]
    assert base64.b64encode(root_of(hashes)).decode() == root, "another root"
    tiles = expected_tiles(hashes)
    for name, content in tiles.items():
        assert (folder / name).read_bytes() == content, f"another tile {name}"
    bundles = {f"tile/entries/{path}" for path, _ in numbers(int(size))}
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert there == {"checkpoint", "lock", *tiles, *bundles}, there ^ {*tiles, *bundles}
    return [json.loads(entry) for entry in entries]


def read_entries(folder: Path, size: int) -> Iterator[bytes]:
    for path, width in numbers(size):
        content = (folder / "tile/entries" / path).read_bytes()
        for _ in range(width):
            length = int.from_bytes(content[:2], "big")
            yield content[2 : 2 + length]
            content = content[2 + length :]
        assert not content, f"more than {width} leaves in {path}"


def numbers(size: int) -> Iterator[tuple[str, int]]:
    """Yield path and width of each tile of a level that has `size` hashes."""
    for number in range(-(-size // WIDTH)):
        width = min(WIDTH, size - number * WIDTH)
        digits = f"{number:03d}"
        digits = digits.zfill(-(-len(digits) // 3) * 3)
        groups = [digits[i : i + 3] for i in range(0, len(digits), 3)]
        path = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
        yield (path if width == WIDTH else f"{path}.p/{width}"), width


def expected_tiles(hashes: list[bytes]) -> dict[str, bytes]:
    tiles = {}
    level = 0
    while hashes:
        for number, (path, width) in enumerate(numbers(len(hashes))):
            start = number * WIDTH
            tiles[f"tile/{level}/{path}"] = b"".join(hashes[start : start + width])
        whole = len(hashes) // WIDTH
        hashes = [root_of(hashes[n * WIDTH : (n + 1) * WIDTH]) for n in range(whole)]
        level += 1
    return tiles


def root_of(hashes: list[bytes]) -> bytes:
    """Return the root of RFC 6962 section 2.1."""
    if len(hashes) < 2:
        return hashes[0] if hashes else hashlib.sha256().digest()
    half = 1 << ((len(hashes) - 1).bit_length() - 1)
    return hashlib.sha256(b"\1" + root_of(hashes[:half]) + root_of(hashes[half:])).digest()
