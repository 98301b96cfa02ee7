"""Record batches built by hand, also such as no client sends and every broker takes."""

import gzip
import struct
from collections.abc import Callable, Sequence

import cramjam
from aiokafka.codec import zstd_encode
from aiokafka.record.util import calc_crc32c, encode_varint

from pipeline.broker.aiokafka_fixes.decompression import inflate

GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4
PLAIN_NAMES = ((b"traceparent", b"00-1"), (b"none", None))
ODD_NAMES = ((b"caf\xe9", b"latin"), (b"\xff\xfe\x00", None), (b"\xed\xa0\x80", b""), *PLAIN_NAMES)
"""Names in Latin-1, of no encoding at all, and a surrogate, which UTF-8 has no place for."""

ByteHeaders = Sequence[tuple[bytes, bytes | None]]


def number(value: int) -> bytes:
    out = bytearray()
    encode_varint(value, out.append)
    return bytes(out)


def content(value: bytes | None) -> bytes:
    return number(-1) if value is None else number(len(value)) + value


def record_bytes(
    delta: int,
    key: bytes | None,
    value: bytes | None,
    headers: ByteHeaders = (),
    *,
    attributes: int = 0,
) -> bytes:
    named = b"".join(content(name) + content(each) for name, each in headers)
    body = (
        bytes([attributes])
        + number(0)
        + number(delta)
        + content(key)
        + content(value)
        + number(len(headers))
        + named
    )
    return number(len(body)) + body


def batch_bytes(records: bytes, count: int, *, codec: int = 0, base_offset: int = 0) -> bytes:
    """Return a batch of format 2 around `records`, which are compressed already."""
    time_ms = 1_766_066_602_123
    checked = struct.pack(">hiqqqhii", codec, count - 1, time_ms, time_ms, -1, -1, -1, count)
    checked += records
    rest = struct.pack(">ibI", -1, 2, calc_crc32c(checked)) + checked
    return struct.pack(">qi", base_offset, len(rest)) + rest


def lz4_frame(data: bytes, *, content_checksum: bool = False) -> bytes:
    made = cramjam.lz4.Compressor(level=1, content_checksum=content_checksum, block_linked=False)
    made.compress(data)
    return bytes(made.finish())


def snappy_stream(data: bytes, *, version: int = 1) -> bytes:
    block = bytes(cramjam.snappy.compress_raw(data))
    return b"\x82SNAPPY\0" + struct.pack(">iii", version, 1, len(block)) + block


def twice(pack: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    return lambda data: pack(data[:50]) + pack(data[50:])


STRANGE_BODIES: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "gzip, bytes after the end": (GZIP, lambda data: gzip.compress(data) + b"garbage!"),
    "gzip, two members": (GZIP, twice(gzip.compress)),
    "snappy, one raw block": (SNAPPY, lambda data: bytes(cramjam.snappy.compress_raw(data))),
    "snappy, another version": (SNAPPY, lambda data: snappy_stream(data, version=2)),
    "snappy, two streams": (SNAPPY, twice(snappy_stream)),
    "snappy, a byte after the end": (SNAPPY, lambda data: snappy_stream(data) + b"\0"),
    "lz4, checksum": (LZ4, lambda data: lz4_frame(data, content_checksum=True)),
    "lz4, wrong checksum": (
        LZ4,
        lambda data: lz4_frame(data, content_checksum=True)[:-4] + b"abcd",
    ),
    "lz4, bytes after the end": (LZ4, lambda data: lz4_frame(data) + b"garbage!"),
    "zstd, two frames": (ZSTD, twice(zstd_encode)),
}
"""How else records may be packed so that Kafka 4.3.1 takes them; aiokafka reads about half."""


def unpacked(codec: int, body: bytes) -> bytes:
    """Return what a batch holds, unpacked."""
    return b"".join(inflate(codec, body))
