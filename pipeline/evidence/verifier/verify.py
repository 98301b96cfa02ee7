#!/usr/bin/env python3
"""Check a bundle of evidence about one run, with nothing but Python's standard library (3.9+).

    python3 verify.py BUNDLE.zip --key VKEY        the key of the log, from its owner
    python3 verify.py BUNDLE.zip --trusted FILE    checkpoints that you were given earlier
    python3 verify.py                              in the unpacked folder

Key and checkpoints must come from outside the bundle: whoever makes a false bundle makes a key
for it too. The same is true of this program: take it from where you trust it.

The procedure, with the same numbers in the code:

1. Read the bundle. Every file must have its place and be listed in SHA256SUMS, with the hash that
   it has.
2. A leaf of the log for the run, and for each advisory that is linked to it.
3. The files have the hashes that the leaves name; artifact and links are canonical JSON, are what
   their path says, and every hash in them can be computed again.
4. Attachments that are there have the hash by which the artifact or a link names them. What
   artifact, links or SHA256SUMS name and is not there makes the bundle incomplete.
5. Each leaf is in the tree of its checkpoint (RFC 6962 section 2.1.1), and the checkpoint is of
   the log of the leaf's own partition.
6. Each key in vkeys.txt signed a checkpoint in the bundle (C2SP signed-note, RFC 8032). With
   --key: the key signed the checkpoint of every leaf.
7. With --trusted: the tree of the checkpoint begins with the tree that you hold (RFC 6962 section
   2.1.2). Without --key that tree must hold the leaf too: what comes after it is only said by a
   signature.

README.txt, report.html and verify.py itself explain. SHA256SUMS shows that they were not damaged;
that the maker of the bundle wrote the truth into them, nothing shows.

Exit status: 0 proven; 1 refused, with the reason; 2 the bundle or an option cannot be read;
3 consistent with itself, origin not proven; 4 proven as far as it goes, and incomplete.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import re
import struct
import sys
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import IO, Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

PROVEN, REFUSED, UNREADABLE, NOT_PROVEN, INCOMPLETE = 0, 1, 2, 3, 4

FORMAT = "rmos.evidence/2"
ARTIFACT_VERSION = "rmos.run_artifact/2"
LINK_VERSION = "rmos.advisory_link/1"
LARGEST_DOCUMENT = 64 << 20
"""Bytes of a file that is read whole; artifacts are far smaller."""
LARGEST_LEGACY_JSON = 16 << 20
PIECE = 1 << 20


class RefusedError(Exception):
    """The evidence does not hold."""


class UnreadableError(Exception):
    """The bundle or an option is not of its form."""


def expect(holds: bool, sentence: str) -> None:
    """Refuse the evidence unless something holds."""
    if not holds:
        raise RefusedError(sentence)


# Ed25519 (RFC 8032 section 5.1).

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
SQRT_OF_MINUS_1 = pow(2, (P - 1) // 4, P)
HALF_LENGTH = 32

Point = Tuple[int, int, int, int]
"""Extended homogeneous coordinates X, Y, Z, T (section 5.1.4)."""

IDENTITY: Point = (0, 1, 1, 0)


def add_points(a: Point, b: Point) -> Point:
    """Return a + b (section 5.1.4)."""
    left = (a[1] - a[0]) * (b[1] - b[0]) % P
    right = (a[1] + a[0]) * (b[1] + b[0]) % P
    c = 2 * a[3] * b[3] * D % P
    d = 2 * a[2] * b[2] % P
    e, f, g, h = right - left, d - c, d + c, right + left
    return e * f % P, g * h % P, f * g % P, e * h % P


def multiply_point(factor: int, point: Point) -> Point:
    """Return factor * point."""
    result = IDENTITY
    while factor:
        if factor & 1:
            result = add_points(result, point)
        point = add_points(point, point)
        factor >>= 1
    return result


def same_points(a: Point, b: Point) -> bool:
    """Compare without dividing."""
    return (a[0] * b[2] - b[0] * a[2]) % P == 0 and (a[1] * b[2] - b[1] * a[2]) % P == 0


def decode_point(content: bytes) -> Optional[Point]:
    """Return the point of 32 bytes, or None where they are none (section 5.1.3)."""
    number = int.from_bytes(content, "little")
    sign, y = number >> 255, number & (1 << 255) - 1
    # Not canonical: every point has one form.
    if y >= P:
        return None
    x_squared = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(x_squared, (P + 3) // 8, P)
    if (x * x - x_squared) % P:
        x = x * SQRT_OF_MINUS_1 % P
    if (x * x - x_squared) % P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return x, y, 1, x * y % P


_BASE = decode_point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))
BASE: Point = _BASE if _BASE is not None else IDENTITY


def verify_ed25519(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Return whether the key signed the message (section 5.1.7), in the strict way.

    S below L, points in their one form, and no key of small order, for which a signature of
    anything could be made.
    """
    if len(public_key) != HALF_LENGTH or len(signature) != 2 * HALF_LENGTH:
        return False
    key, r = decode_point(public_key), decode_point(signature[:HALF_LENGTH])
    s = int.from_bytes(signature[HALF_LENGTH:], "little")
    if key is None or r is None or s >= L or same_points(multiply_point(8, key), IDENTITY):
        return False
    digest = hashlib.sha512(signature[:HALF_LENGTH] + public_key + message).digest()
    k = int.from_bytes(digest, "little") % L
    return same_points(multiply_point(s, BASE), add_points(r, multiply_point(k, key)))


# Merkle trees (RFC 6962 section 2.1), checked by the procedures of RFC 9162 section 2.1.

EMPTY_ROOT = hashlib.sha256().digest()


def leaf_hash(leaf: bytes) -> bytes:
    """Return the hash of a leaf."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of two subtrees."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def siblings(
    place: int, last: int, proof: Sequence[bytes], kind: str
) -> Iterator[Tuple[bytes, bool]]:
    """Yield the hashes of a proof, each with whether it is the left one, from a place to the root.

    Both procedures of RFC 9162 go this way; a proof of another length is refused.
    """
    for sibling in proof:
        expect(last != 0, f"expected a shorter {kind} proof")
        is_left = bool(place & 1) or place == last
        yield sibling, is_left
        while is_left and place and not place & 1:
            place, last = place >> 1, last >> 1
        place, last = place >> 1, last >> 1
    expect(last == 0, f"expected a longer {kind} proof")


def verify_inclusion(
    leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes
) -> None:
    """Check that the leaf with this hash is at `index` (RFC 9162 section 2.1.3.2)."""
    expect(0 <= index < size, f"expected a leaf below {size}, found {index}")
    found = leaf
    for sibling, is_left in siblings(index, size - 1, path, "inclusion"):
        found = node_hash(sibling, found) if is_left else node_hash(found, sibling)
    expect(found == root, f"expected the root {root.hex()}, the leaf leads to {found.hex()}")


def verify_consistency(
    old_size: int, size: int, proof: Sequence[bytes], old_root: bytes, root: bytes
) -> None:
    """Check that the old tree begins the new one (RFC 9162 section 2.1.4.2)."""
    expect(0 <= old_size <= size, f"expected an old size up to {size}, found {old_size}")
    if old_size in {0, size}:
        expect(not proof, "expected no hash in a proof between these sizes")
        expect(old_root == (root if old_size else EMPTY_ROOT), "expected the same root")
        expect(size > 0 or root == EMPTY_ROOT, "expected the root of an empty tree")
        return
    expect(bool(proof), "expected a consistency proof, found no hash")
    hashes = list(proof) if old_size & (old_size - 1) else [old_root, *proof]
    place, last = old_size - 1, size - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    old_found = found = hashes[0]
    for sibling, is_left in siblings(place, last, hashes[1:], "consistency"):
        if is_left:
            old_found = node_hash(sibling, old_found)
        found = node_hash(sibling, found) if is_left else node_hash(found, sibling)
    expect(old_found == old_root, f"expected the old root {old_root.hex()}")
    expect(found == root, f"expected the root {root.hex()}, found {found.hex()}")


# Notes, keys, checkpoints, proofs (C2SP signed-note, tlog-checkpoint, tlog-proof).

HASH_BYTES = 32
KEY_ID_BYTES = 4
ED25519 = b"\x01"
SIGNATURE_LIMIT = 100
NOTE_LIMIT = 1_000_000
CHECKPOINT_LINES = 3
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_ORIGIN = re.compile(
    r"(rmos/[0-9a-f]{32})/([1-9][0-9]{0,8})/([A-Za-z0-9._-]{1,249})/(0|[1-9][0-9]{0,9})", re.ASCII
)


def decode_base64(text: str) -> bytes:
    """Return the bytes of a text in the one form that they have."""
    try:
        content = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise RefusedError(f"expected base64, found {visible(text[:80])}") from error
    expect(base64.b64encode(content).decode() == text, "expected base64 in its one form")
    return content


def decode_hash(text: str) -> bytes:
    """Return a hash of a tree from its text."""
    content = decode_base64(text)
    expect(len(content) == HASH_BYTES, f"expected a hash of 32 bytes, found {len(content)}")
    return content


@dataclass(frozen=True)
class Key:
    """A public key and the name under which it signs."""

    name: str
    public_key: bytes

    @property
    def key_id(self) -> bytes:
        """Four bytes that differ for keys of one name."""
        hashed = self.name.encode() + b"\n" + ED25519 + self.public_key
        return hashlib.sha256(hashed).digest()[:KEY_ID_BYTES]


def parse_vkey(text: str) -> Key:
    """Return the key of `<name>+<key id in hex>+<base64 of type and key>`."""
    name, _, rest = text.partition("+")
    key_id, _, encoded = rest.partition("+")
    try:
        content = decode_base64(encoded)
    except RefusedError as error:
        message = f"expected a vkey <name>+<key id>+<key>, found {visible(text[:200])}"
        raise UnreadableError(message) from error
    key = Key(name, content[1:])
    well_formed = bool(name) and not re.search(r"\s", name) and content[:1] == ED25519
    if not well_formed or len(content) != 1 + HALF_LENGTH or key.key_id.hex() != key_id:
        raise UnreadableError(f"expected the vkey of an Ed25519 key, found {visible(text[:200])}")
    return key


Signature = Tuple[str, bytes, bytes]
"""One signature line of a note: name, key id, signature."""


@dataclass(frozen=True)
class Checkpoint:
    """A signed statement of a log: how many leaves it has, and their root."""

    note: bytes
    text: str
    signatures: Tuple[Signature, ...]
    origin: str
    size: int
    root: bytes

    def is_signed_by(self, key: Key) -> bool:
        """Return whether the key signed it; a signature in its name that is wrong refuses it."""
        own = (key.name, key.key_id)
        found = [signature for *signer, signature in self.signatures if tuple(signer) == own]
        for each in found:
            fits = verify_ed25519(key.public_key, self.text.encode(), each)
            expect(fits, f"expected a signature of {visible(key.name)} that fits the checkpoint")
        return bool(found)


def parse_checkpoint(note: bytes) -> Checkpoint:
    """Return the checkpoint in a signed note; no signature is checked yet."""
    expect(len(note) <= NOTE_LIMIT, "expected a note of at most 1,000,000 bytes")
    whole = decode_text(note, "a note")
    expect(not _CONTROL.search(whole), "expected no control characters in a note")
    text, separator, rest = whole.rpartition("\n\n")
    expect(bool(separator) and rest.endswith("\n"), "expected a text and whole signature lines")
    signatures = tuple(parse_signature(line) for line in rest[:-1].split("\n"))
    expect(len(signatures) <= SIGNATURE_LIMIT, "expected fewer signatures")
    lines = text.split("\n")
    expect(len(lines) == CHECKPOINT_LINES, "expected origin, size and root in a checkpoint")
    origin, size, root = lines
    expect(_NUMBER.fullmatch(size) is not None, "expected the size of a log")
    expect(bool(origin), "expected the origin of a log")
    return Checkpoint(note, text + "\n", signatures, origin, int(size), decode_hash(root))


def parse_signature(line: str) -> Signature:
    """Return what a signature line says."""
    parts = line.split(" ")
    whole = len(parts) == 3 and parts[0] == "\u2014"  # noqa: PLR2004
    expect(whole, f"expected a signature line, found {visible(line[:200])}")
    name, content = parts[1], decode_base64(parts[2])
    expect(bool(name) and "+" not in name and not re.search(r"\s", name), "expected a key's name")
    expect(len(content) > KEY_ID_BYTES, "expected a key id and a signature")
    return name, content[:KEY_ID_BYTES], content[KEY_ID_BYTES:]


def parse_held(content: bytes) -> Dict[str, Checkpoint]:
    """Return the checkpoints of a file that `rmos ledger checkpoint` printed, or of one note."""
    parts = content.split(b"\n\n")
    try:
        expect(len(parts) % 2 == 0, "expected whole checkpoints, an empty line between two")
        held: Dict[str, Checkpoint] = {}
        for start in range(0, len(parts), 2):
            end = b"" if start == len(parts) - 2 else b"\n"
            found = parse_checkpoint(parts[start] + b"\n\n" + parts[start + 1] + end)
            expect(found.origin not in held, f"expected one checkpoint of {visible(found.origin)}")
            held[found.origin] = found
    except RefusedError as error:
        raise UnreadableError(f"the trusted checkpoints cannot be read: {error}") from error
    return held


@dataclass(frozen=True)
class Inclusion:
    """Where a leaf is, and why: index, path and checkpoint."""

    index: int
    path: Tuple[bytes, ...]
    checkpoint: Checkpoint


def parse_inclusion(content: bytes) -> Inclusion:
    """Return a C2SP tlog-proof, of which nothing is checked yet."""
    head, separator, note = content.partition(b"\n\n")
    lines = decode_text(head, "an inclusion proof").split("\n")
    known = bool(separator) and len(lines) > 1 and lines[0] == "c2sp.org/tlog-proof@v1"
    expect(known, "expected c2sp.org/tlog-proof@v1")
    index = number_after("index ", lines[1])
    return Inclusion(index, tuple(map(decode_hash, lines[2:])), parse_checkpoint(note))


Consistency = Tuple[int, List[bytes]]
"""That a checkpoint's tree begins with the tree of an older size: that size, and the proof."""


def parse_consistency(content: bytes, checkpoint: Checkpoint) -> Consistency:
    """Return a proof in the form of C2SP tlog-witness, up to the same checkpoint."""
    head, separator, note = content.partition(b"\n\n")
    lines = decode_text(head, "a consistency proof").split("\n")
    expect(bool(separator), "expected a consistency proof and its checkpoint")
    expect(note == checkpoint.note, "expected a consistency proof up to the same checkpoint")
    return number_after("old ", lines[0]), [decode_hash(each) for each in lines[1:]]


def number_after(word: str, line: str) -> int:
    """Return the number in a line of a proof."""
    expect(line.startswith(word), f"expected {word}and a number, found {visible(line[:80])}")
    digits = line[len(word) :]
    expect(_NUMBER.fullmatch(digits) is not None, f"expected a number, found {visible(line[:80])}")
    return int(digits)


def decode_text(content: bytes, what: str) -> str:
    """Return the text of bytes in UTF-8."""
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise RefusedError(f"expected {what} in UTF-8") from error


# Canonical JSON.


def canonical_json(value: object) -> bytes:
    """Return the bytes that every hash of a JSON value is of."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def parse_canonical(content: bytes, what: str) -> Dict[str, Any]:
    """Return the object in `content`, which must be its canonical form."""
    try:
        value = json.loads(content.decode(), parse_constant=refuse_constant)
        # Of two equal keys one would be lost here, and the bytes would differ.
        same = canonical_json(value) == content
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"expected JSON in {what}") from error
    expect(same and isinstance(value, dict), f"expected one object in canonical JSON in {what}")
    found: Dict[str, Any] = value
    return found


def refuse_constant(name: str) -> None:
    """Refuse NaN and infinities, which are no JSON."""
    raise ValueError(name)


def sha256_of_json(value: object) -> str:
    """Return the SHA-256 of the canonical form of a value."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def part(document: Dict[str, Any], name: str, kind: type) -> Any:  # noqa: ANN401
    """Return a part of a document, which must be there and of its kind."""
    value = document.get(name)
    expect(isinstance(value, kind), f"expected {name} in a document")
    return value


# Step 1, the bundle.

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_LOCAL_HEADER = 30
_DIRECTORY_ENTRY = 46
_ENDS_OF_DIRECTORY = (22, 22 + 56 + 20)
_DESCRIPTORS = (12, 16, 20, 24)
"""Bytes that may follow the content of a member whose header does not say how long it is."""
_RECORD = re.compile(r"records/(run|advisory-[1-9][0-9]{0,5})\.(leaf|tlog-proof|consistency)")


def open_file(path: Path) -> IO[bytes]:
    """Open a file of an unpacked bundle."""
    return path.open("rb")


class Bundle:
    """The files of a bundle by their names, in a zip file or in a folder."""

    def __init__(self, path: Path) -> None:
        """Open the bundle at `path`."""
        self._names: Dict[str, Callable[[], IO[bytes]]] = {}
        self._folders: List[str] = []
        self._hashes: Dict[str, str] = {}
        try:
            if path.is_dir():
                self._find_files(path)
            else:
                self._find_members(path)
        except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
            raise UnreadableError(f"{path} cannot be read: {error}") from error
        self.check_format()

    def check_format(self) -> None:
        """Check that this program knows the format."""
        if self.read("FORMAT", 100) != f"{FORMAT}\n".encode():
            raise UnreadableError(f"expected a bundle of the format {FORMAT}")

    def _find_files(self, root: Path) -> None:
        for path in sorted(root.rglob("*")):
            name = path.relative_to(root).as_posix()
            if path.is_dir() and not path.is_symlink():
                self._folders.append(name)
            elif path.is_file() and not path.is_symlink():
                self._names[name] = partial(open_file, path)
            else:
                raise UnreadableError(f"expected a file at {visible(name)}, found something else")

    def _find_members(self, path: Path) -> None:
        archive = zipfile.ZipFile(path)
        refuse_hidden_bytes(archive, path.stat().st_size)
        for member in archive.infolist():
            if member.filename in self._names:
                message = f"expected every name once, found {visible(member.filename)} twice"
                raise UnreadableError(message)
            if member.flag_bits & 1 or member.compress_type not in _METHODS:
                raise UnreadableError(f"expected {visible(member.filename)} stored or deflated")
            if member.is_dir():
                self._folders.append(member.filename[:-1])
            else:
                self._names[member.filename] = partial(archive.open, member)

    def names(self, folder: str = "") -> List[str]:
        """Return the names of the files below a folder, or of all."""
        start = f"{folder}/" if folder else ""
        return sorted(name for name in self._names if name.startswith(start))

    def empty_folders(self) -> List[str]:
        """Return the folders with no file below."""
        return [name for name in self._folders if not self.names(name)]

    def __contains__(self, name: str) -> bool:
        return name in self._names

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file."""
        if name not in self._names:
            raise UnreadableError(f"expected {visible(name)} in the bundle")
        try:
            with self._names[name]() as file:
                yield file
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            message = f"{visible(name)} in the bundle cannot be read: {error}"
            raise UnreadableError(message) from error

    def read(self, name: str, limit: int = LARGEST_DOCUMENT) -> bytes:
        """Return the bytes of a file that is not large."""
        with self.open(name) as file:
            content = file.read(limit + 1)
        if len(content) > limit:
            raise UnreadableError(f"expected at most {limit} bytes in {visible(name)}")
        return content

    def sha256(self, name: str) -> str:
        """Return the hash of a file of any size, which is read once for it."""
        if name not in self._hashes:
            digest = hashlib.sha256()
            with self.open(name) as file:
                for piece in iter(lambda: file.read(PIECE), b""):
                    digest.update(piece)
            self._hashes[name] = digest.hexdigest()
        return self._hashes[name]


def refuse_hidden_bytes(archive: zipfile.ZipFile, size: int) -> None:
    """Refuse a zip file with bytes that are of no member: other programs may show them.

    The members must lie one after the other from the first byte on, then their directory, and
    nothing else: no comment, no member that the directory does not name.
    """
    members = archive.infolist()
    place = 0
    gaps: Sequence[int] = (0,)
    for member in sorted(members, key=lambda each: each.header_offset):
        refuse_gap(member.header_offset - place, gaps)
        place = member.header_offset + header_size(archive, member) + member.compress_size
        gaps = _DESCRIPTORS if member.flag_bits & 8 else (0,)
    refuse_gap(archive.start_dir - place, gaps)
    directory = sum(
        _DIRECTORY_ENTRY + len(member.orig_filename.encode()) + len(member.extra)
        for member in members
    )
    refuse_gap(size - archive.start_dir - directory, _ENDS_OF_DIRECTORY)


def refuse_gap(found: int, known: Sequence[int]) -> None:
    """Refuse a zip file that has another number of bytes between two of its parts."""
    if found not in known:
        raise ValueError("it has bytes that are no part of a file in it")


def header_size(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> int:
    """Return how long the header before the content of a member is."""
    file = archive.fp
    if file is None:
        raise ValueError("closed")
    file.seek(member.header_offset)
    header = file.read(_LOCAL_HEADER)
    if len(header) != _LOCAL_HEADER:
        raise ValueError("a header is cut")
    name, extra = struct.unpack("<HH", header[-4:])
    return _LOCAL_HEADER + int(name) + int(extra)


# Step 1, what is listed.

_FIXED = ("FORMAT", "README.txt", "report.html", "verify.py", "vkeys.txt")
_SUMS = "SHA256SUMS"
_SUM = re.compile(r"([0-9a-f]{64})  ([!-~]+)", re.ASCII)


def check_sums(bundle: Bundle) -> List[str]:
    """Check every file against SHA256SUMS; return the names in it of what is not there."""
    text = decode_text(bundle.read(_SUMS), _SUMS)
    expect(text.endswith("\n"), f"expected whole lines in {_SUMS}")
    listed: Dict[str, str] = {}
    for each in text[:-1].split("\n"):
        found = _SUM.fullmatch(each)
        known = found is not None and found[2] not in listed
        expect(known, f"expected a hash and a new name in {_SUMS}, found {visible(each[:200])}")
        if found is not None:
            listed[found[2]] = found[1]
    for name in _FIXED:
        expect(name in listed, f"expected {name} in {_SUMS}")
    for name in bundle.names():
        expect(name in listed or name == _SUMS, f"nothing explains {visible(name)}")
        same = name == _SUMS or bundle.sha256(name) == listed[name]
        expect(same, f"{name} does not have the hash that {_SUMS} lists")
    for name in bundle.empty_folders():
        expect(any(each.startswith(f"{name}/") for each in listed), f"nothing explains {name}")
    return sorted(listed.keys() - set(bundle.names()))


# Step 2, leaves.


@dataclass(frozen=True)
class Record:
    """What the log says of one file, and the proof that it says so."""

    name: str
    leaf: Dict[str, Any]
    encoded: bytes
    path: str
    sha256: str
    inclusion: Inclusion
    consistency: Optional[Consistency]


def read_records(bundle: Bundle) -> List[Record]:
    """Return the record of the run, then those of its advisories."""
    found = [_RECORD.fullmatch(name) for name in bundle.names("records")]
    for name, match in zip(bundle.names("records"), found):
        expect(match is not None, f"nothing explains {visible(name)}")
    # The run before its advisories, and those by number.
    names = sorted(
        {match[1] for match in found if match is not None},
        key=lambda name: int(name.partition("-")[2] or 0),
    )
    if names[:1] != ["run"]:
        raise UnreadableError("expected records/run.leaf in the bundle")
    run = read_record(bundle, "run", None)
    return [run, *(read_record(bundle, name, run) for name in names[1:])]


def read_record(bundle: Bundle, name: str, run: Optional[Record]) -> Record:
    """Read a leaf and its proofs; an advisory must be one of the run."""
    encoded = bundle.read(f"records/{name}.leaf")
    leaf = parse_canonical(encoded, f"the leaf {name}")
    expect(leaf.get("v") == 1, f"expected version 1 of the leaf {name}")
    path, sha256 = run_file(leaf) if run is None else link_file(leaf, run)
    inclusion = parse_inclusion(bundle.read(f"records/{name}.tlog-proof"))
    consistency = None
    if f"records/{name}.consistency" in bundle:
        content = bundle.read(f"records/{name}.consistency")
        consistency = parse_consistency(content, inclusion.checkpoint)
    return Record(name, leaf, encoded, path, sha256, inclusion, consistency)


def run_file(leaf: Dict[str, Any]) -> Tuple[str, str]:
    """Return path and hash that the leaf of a run names."""
    expect(leaf.get("kind") == "run", "expected the leaf of a run that was stored")
    part(leaf, "run_id", str)
    return part(leaf, "path", str), part(leaf, "sha256", str)


def link_file(leaf: Dict[str, Any], run: Record) -> Tuple[str, str]:
    """Return path and hash of the link that the leaf of an advisory stands for."""
    expect(leaf.get("kind") == "advisory", "expected the leaf of an advisory")
    expect(leaf.get("run_id") == run.leaf["run_id"], "expected an advisory of the same run")
    folder = run.path.rpartition("/")[0]
    advisory_id = part(leaf, "advisory_id", str)
    return f"{folder}/{leaf['run_id']}_advisory_{advisory_id}.json", part(leaf, "link_sha256", str)


# Step 3, artifact and links.

_PATH = re.compile(r"runs/[0-9]{4}-[0-9]{2}-[0-9]{2}/[A-Za-z0-9][A-Za-z0-9._-]*\.json")


def read_document(bundle: Bundle, record: Record, version: str) -> Dict[str, Any]:
    """Return the document of a record, whose bytes are those that the leaf names."""
    expect(_PATH.fullmatch(record.path) is not None, "expected the path of a file of a run")
    content = bundle.read(f"files/{record.path}")
    found = hashlib.sha256(content).hexdigest()
    expect(
        found == record.sha256,
        f"{record.path}: the leaf says SHA-256 {record.sha256}, the file has {found}",
    )
    document = parse_canonical(content, record.path)
    expect(document.get("schema_version") == version, f"expected {version} in {record.path}")
    return document


def check_artifact(record: Record, document: Dict[str, Any]) -> None:
    """Check that the artifact is the run of its leaf, and every hash in it."""
    run_id, created = part(document, "run_id", str), part(document, "created_at_utc", str)
    expect(run_id == record.leaf.get("run_id"), "the artifact is of another run than its leaf")
    expect(record.path == f"runs/{created[:10]}/{run_id}.json", "the artifact has another path")
    hashes = part(document, "hashes", dict)
    expect(hashes == computed_hashes(document), "a hash in the artifact is not that of its payload")


def computed_hashes(document: Dict[str, Any]) -> Dict[str, str]:
    """Return the hashes that the payloads in the artifact have."""
    outputs = part(document, "outputs", dict)
    found = {"feasibility_sha256": sha256_of_json(part(document, "feasibility", dict))}
    if "toolpaths" in outputs:
        found["toolpaths_sha256"] = sha256_of_json(outputs["toolpaths"])
    if "opplan_json" in outputs:
        found["opplan_sha256"] = sha256_of_json(outputs["opplan_json"])
    if "gcode_text" in outputs:
        text = part(outputs, "gcode_text", str)
        found["gcode_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    else:
        # G-code above 200 KiB is an attachment, which is checked like every other.
        claimed = document["hashes"].get("gcode_sha256")
        moved = [ref["sha256"] for ref in attachments_of(document) if ref["sha256"] == claimed]
        if moved and outputs.get("gcode_path") == attachment_path(moved[0]):
            found["gcode_sha256"] = moved[0]
    return found


def check_link(record: Record, document: Dict[str, Any]) -> None:
    """Check that the link is that of its leaf."""
    for name in ("run_id", "advisory_id"):
        same = document.get(name) == record.leaf.get(name)
        expect(same, f"{record.path} has another {name} than its leaf")


# Step 4, attachments.

_SHA256 = re.compile(r"[0-9a-f]{64}")


def attachment_path(sha256: str) -> str:
    """Return the path of an attachment in the store."""
    return f"attachments/{sha256[:2]}/{sha256[2:4]}/{sha256}"


def attachments_of(document: Dict[str, Any]) -> List[Dict[str, Any]]:
    """Return the attachments that an artifact or a link names."""
    if document.get("schema_version") == LINK_VERSION:
        content = document.get("content_sha256")
        refs = [] if content is None else [{"sha256": content, "kind": document.get("kind")}]
    else:
        refs = part(document, "attachments", list)
    for ref in refs:
        named = isinstance(ref, dict) and isinstance(ref.get("sha256"), str)
        expect(named and _SHA256.fullmatch(ref["sha256"]) is not None, "expected an attachment")
    return refs


def check_attachments(
    bundle: Bundle, documents: Sequence[Dict[str, Any]]
) -> Tuple[int, Dict[str, str]]:
    """Return how many attachments are there, and by name a line for each that is not."""
    refs = {ref["sha256"]: ref for document in documents for ref in attachments_of(document)}
    missing = {}
    for sha256, ref in refs.items():
        name = f"files/{attachment_path(sha256)}"
        if name not in bundle:
            given = (str(ref[key]) for key in ("kind", "filename") if ref.get(key))
            missing[name] = "  ".join([sha256, *given])
            continue
        found = bundle.sha256(name)
        same = found == sha256 or is_legacy_json(bundle, name, sha256)
        expect(same, f"the attachment {sha256} has the SHA-256 {found}")
    return len(refs) - len(missing), missing


def is_legacy_json(bundle: Bundle, name: str, sha256: str) -> bool:
    """Return whether a blob of an older store is JSON whose canonical form has the hash.

    Such a blob is never canonical itself: one byte changed in one that is keeps its length.
    """
    try:
        content = bundle.read(name, LARGEST_LEGACY_JSON)
        canonical = canonical_json(json.loads(content.decode(), parse_constant=refuse_constant))
    except (UnreadableError, ValueError, RecursionError):
        return False
    digest = hashlib.sha256(canonical).hexdigest()
    return digest == sha256 and len(canonical) != len(content)


def refuse_unexplained(bundle: Bundle, records: Sequence[Record], names: Sequence[str]) -> None:
    """Refuse files that no leaf and no document explains: they would look proven."""
    known = {*_FIXED, _SUMS, *bundle.names("records")}
    known |= {f"files/{record.path}" for record in records}
    known |= {f"files/{attachment_path(sha256)}" for sha256 in names}
    for name in bundle.names():
        expect(name in known, f"nothing explains {visible(name)}")


# Steps 5 to 7, proofs.


ASK = "ask for a bundle made with what you hold (rmos evidence RUN_ID --trusted FILE)"


def check_inclusion(record: Record) -> None:
    """5. Check that the leaf is in the log of its own partition."""
    inclusion, checkpoint = record.inclusion, record.inclusion.checkpoint
    origin = _ORIGIN.fullmatch(checkpoint.origin)
    source = part(record.leaf, "source", dict)
    place = (source.get("topic"), str(source.get("partition")))
    expect(
        origin is not None and (origin[3], origin[4]) == place,
        f"the leaf of {record.name} is of another log than {visible(checkpoint.origin)}",
    )
    verify_inclusion(
        leaf_hash(record.encoded),
        inclusion.index,
        checkpoint.size,
        inclusion.path,
        checkpoint.root,
    )


def check_vkeys(bundle: Bundle, records: Sequence[Record]) -> List[Key]:
    """Return the keys that the bundle names, each of which signed a checkpoint in it."""
    if "vkeys.txt" not in bundle:
        return []
    text = decode_text(bundle.read("vkeys.txt"), "vkeys.txt")
    lines = text.split("\n")
    whole = len(lines) > 1 and not lines.pop() and len(set(lines)) == len(lines)
    expect(whole, "expected a key on each line of vkeys.txt")
    keys = [parse_vkey(each) for each in lines]
    for key in keys:
        signed = [record.inclusion.checkpoint.is_signed_by(key) for record in records]
        expect(any(signed), f"no checkpoint is signed by {visible(key.name)} of vkeys.txt")
    return keys


def check_signature(record: Record, keys: Sequence[Key]) -> str:
    """6. Return the name of the key that signed the record's checkpoint."""
    checkpoint = record.inclusion.checkpoint
    signed = [key for key in keys if checkpoint.is_signed_by(key)]
    expect(bool(signed), f"no given key signed the checkpoint of {record.name}")
    # A key speaks for the logs of its own store.
    of_store = checkpoint.origin.startswith(f"{signed[0].name}/")
    expect(of_store, f"{visible(signed[0].name)} signed a checkpoint of another store's log")
    return f"{signed[0].name}+{signed[0].key_id.hex()}"


def check_held(
    record: Record, held: Dict[str, Checkpoint], keys: Sequence[Key]
) -> Tuple[bool, str]:
    """7. Compare the record's log with the checkpoint of it that is held.

    Return whether that proves where the record comes from, and what was found.
    """
    now, index = record.inclusion.checkpoint, record.inclusion.index
    old = held.get(now.origin)
    if old is None:
        return False, f"you hold no checkpoint of {now.origin}"
    if old.size == now.size:
        rewritten = f"the log was rewritten: of {now.size} leaves you hold another root"
        expect(old.root == now.root, rewritten)
        return True, f"it is the checkpoint of {old.size} leaves that you hold"
    if old.size > now.size:
        sizes = f"you hold a checkpoint of {old.size} leaves, the bundle has one of {now.size}"
        return False, f"{sizes}: {ASK}"
    old_size, proof = record.consistency or (None, [])
    if old_size != old.size:
        made_for = "none" if old_size is None else f"one of {old_size} leaves"
        sizes = f"or a checkpoint of {now.size} leaves, you hold one of {old.size}"
        return False, f"the bundle fits {made_for}, {sizes}: {ASK}"
    verify_consistency(old.size, now.size, proof, old.root, now.root)
    begins = f"the log begins with the {old.size} leaves of the checkpoint that you hold"
    if index < old.size:
        return True, f"{begins}, and this is one of them"
    # What comes after the held tree is only said by a signature.
    return bool(keys), f"{begins}, and this leaf came after them: give --key too"


# The whole.

# What acts, hides or reorders: Unicode's categories Cc, Cf, Zl, Zp and Cs, and all else that is
# ignorable by default. RMOS Runs itself shows texts by the same rule.
_NOT_SEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2"
    "\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164"
    "\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]"
)


def visible(text: str) -> str:
    """Return a text as one line in which nothing acts on a terminal, hides or reorders."""
    return _NOT_SEEN.sub(
        lambda found: ("\\u%04x" if found[0] <= "\uffff" else "\\U%08x") % ord(found[0]), text
    )


def line(name: str, *words: object) -> str:
    """Return one line of the account."""
    return f"{name:<12} {' '.join(visible(str(word)) for word in words)}\n"


@dataclass(frozen=True)
class Account:
    """What was found where nothing was refused.

    Attributes:
        lines: What is said to the reader.
        reasons: Why the origin is not proven; none where it is.
        missing: What is named and not there.
    """

    lines: List[str]
    reasons: List[str]
    missing: List[str]


def lines_of_run(record: Record, document: Dict[str, Any]) -> Iterator[str]:
    """Yield what the artifact says."""
    decision = part(document, "decision", dict)
    yield line("run_id", document["run_id"])
    yield line("status", document.get("status"), "  risk", decision.get("risk_level"))
    if decision.get("block_reason"):
        yield line("because", decision["block_reason"])
    yield line("created", document["created_at_utc"], " as the request says")
    yield line("received", broker_time(record.leaf), " as the broker said")
    yield line("artifact", record.path)
    yield line("sha256", record.sha256, " as its leaf says")


def broker_time(leaf: Dict[str, Any]) -> str:
    """Return the broker time of a leaf in words."""
    milliseconds = part(part(leaf, "source", dict), "timestamp_ms", int)
    try:
        moment = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=milliseconds)
    except OverflowError:
        return f"{milliseconds} ms after 1970"
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{milliseconds % 1000:03d}Z"


def check_bundle(
    bundle: Bundle, keys: Sequence[Key], held: Optional[Dict[str, Checkpoint]]
) -> Account:
    """Check all of it; nothing is said of it before everything was looked at."""
    # 1.
    absent = check_sums(bundle)
    # 2.
    records = read_records(bundle)
    # 3.
    artifact = read_document(bundle, records[0], ARTIFACT_VERSION)
    check_artifact(records[0], artifact)
    documents = [artifact]
    for record in records[1:]:
        documents.append(read_document(bundle, record, LINK_VERSION))
        check_link(record, documents[-1])
    # 4.
    present, missing = check_attachments(bundle, documents)
    named = [ref["sha256"] for document in documents for ref in attachments_of(document)]
    refuse_unexplained(bundle, records, named)
    # 5.
    for record in records:
        check_inclusion(record)
    stores = {record.inclusion.checkpoint.origin.split("/")[1] for record in records}
    expect(len(stores) == 1, "expected the logs of one store")
    lines = [*lines_of_run(records[0], artifact)]
    lines.append(line("attachments", f"{present} have the hash that is their name"))
    missing = {**{name: name for name in absent}, **missing}
    lines += [line("MISSING", each) for each in missing.values()]
    # 6. and 7.
    listed_keys = check_vkeys(bundle, records)
    reasons: List[str] = []
    for record in records:
        found, unproven = check_origin(record, keys, held)
        lines += found
        reasons += unproven
    lines += lines_of_keys(listed_keys, keys)
    lines.append(
        line("explained", "README.txt, report.html and verify.py are not proven by a leaf")
    )
    lines += lines_of_verifier(bundle)
    return Account(lines, reasons, list(missing))


def lines_of_verifier(bundle: Bundle) -> Iterator[str]:
    """Yield that the verifier in the bundle is not the running one: who runs it may be deceived."""
    name = "verify.py"
    own = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    if name in bundle and bundle.sha256(name) != own:
        yield line(
            "", f"{name} in the bundle is not this program: do not run it unless you trust it"
        )


def lines_of_keys(listed: Sequence[Key], given: Sequence[Key]) -> Iterator[str]:
    """Yield which keys the bundle names that the reader did not."""
    for key in listed:
        if given and key not in given:
            name = f"{key.name}+{key.key_id.hex()}"
            yield line("", f"signed by {name} too, as vkeys.txt says: you did not give this key")


def check_origin(
    record: Record, keys: Sequence[Key], held: Optional[Dict[str, Checkpoint]]
) -> Tuple[List[str], List[str]]:
    """Return the lines about where one record comes from, and why that is not proven."""
    inclusion, checkpoint = record.inclusion, record.inclusion.checkpoint
    place = f"leaf {inclusion.index} of {checkpoint.size} in {checkpoint.origin}"
    lines, reasons = [line(record.name, place)], []
    # 6.
    if keys:
        lines.append(line("", "signed by", check_signature(record, keys)))
    # 7.
    if held is not None:
        is_proven, sentence = check_held(record, held, keys)
        lines.append(line("", sentence))
        if not is_proven:
            reasons.append(f"{record.name}: {sentence}")
    if not keys and held is None:
        reasons.append(f"{record.name}: no key and no trusted checkpoint was given")
    return lines, reasons


def parse_options(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options of a command line; exit 2 where they are none."""
    parser = argparse.ArgumentParser(
        description="Check a bundle of evidence about one run.",
        epilog="Exit status: 0 proven, 1 refused, 2 unreadable, 3 origin not proven, 4 incomplete.",
    )
    parser.add_argument(
        "bundle",
        nargs="?",
        type=Path,
        default=Path(__file__).parent,
        help="the zip file, or the folder of the unpacked one; this program's if absent",
    )
    parser.add_argument(
        "--key", action="append", default=[], metavar="VKEY", help="the log's key; may be repeated"
    )
    parser.add_argument(
        *("--trusted", "--held"),
        dest="trusted",
        type=Path,
        metavar="FILE",
        help="checkpoints that you were given earlier; --held is the older name",
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Check a bundle; return the exit status."""
    if hasattr(sys, "set_int_max_str_digits"):
        # Integers keep every digit, of which there may be 4,300.
        sys.set_int_max_str_digits(0)
    options = parse_options(arguments)
    try:
        keys = [parse_vkey(text) for text in options.key]
        held = None if options.trusted is None else read_held(options.trusted)
        # 1.
        account = check_bundle(Bundle(options.bundle), keys, held)
    except UnreadableError as error:
        sys.stdout.write(line("UNREADABLE", error))
        return UNREADABLE
    except RefusedError as error:
        sys.stdout.write(line("REFUSED", error))
        return REFUSED
    sys.stdout.writelines(account.lines)
    sys.stdout.writelines(line("not proven", reason) for reason in account.reasons)
    incomplete = f"incomplete, files that are named and not here: {len(account.missing)}"
    if account.reasons:
        told = f"{incomplete}; the rest is " if account.missing else ""
        sys.stdout.write(line("RESULT", f"{told}consistent with itself, origin not proven"))
        return NOT_PROVEN
    if account.missing:
        told = f"{incomplete}; the log recorded those that are here"
        sys.stdout.write(line("RESULT", told))
        return INCOMPLETE
    sys.stdout.write(line("RESULT", "proven: the log recorded these bytes, and they are unchanged"))
    return PROVEN


def read_held(path: Path) -> Dict[str, Checkpoint]:
    """Return the checkpoints in a file."""
    try:
        return parse_held(path.read_bytes())
    except OSError as error:
        raise UnreadableError(f"{path} cannot be read: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
