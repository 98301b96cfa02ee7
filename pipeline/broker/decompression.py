"""Decompression of batches as the broker's own Java does it, and so of all that it accepted.

The broker unpacks every batch before it takes it, and so does this; but Java passes over bytes
after the end and over some checksums where the decoders of aiokafka give up. Tried with Kafka
4.3.1; no usual client sends such a batch.
"""

import zlib
from collections.abc import Iterator

import cramjam
from aiokafka.codec import zstd_decode
from aiokafka.record.default_records import DefaultRecordBatch

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WINDOW_BITS = 31
_XERIAL_MAGIC = b"\x82SNAPPY\0"
_XERIAL_HEADER_BYTES = 16
_LZ4_BLOCK_BYTES = {4: 1 << 16, 5: 1 << 18, 6: 1 << 20, 7: 1 << 22}
_LZ4_STORED = 1 << 31


def decompress(codec: int, data: bytes) -> bytes:
    """Return what the broker saw in `data`.

    Args:
        codec: The codec of a batch's attributes.
        data: The batch without its header.
    """
    if codec == DefaultRecordBatch.CODEC_GZIP:
        return b"".join(_gzip_members(data))
    if codec == DefaultRecordBatch.CODEC_SNAPPY:
        return b"".join(_snappy_blocks(data))
    if codec == DefaultRecordBatch.CODEC_LZ4:
        return b"".join(_lz4_blocks(data))
    if codec == DefaultRecordBatch.CODEC_ZSTD:
        # No difference was found.
        return zstd_decode(data)  # type: ignore[no-any-return]
    return data


def _gzip_members(data: bytes) -> Iterator[bytes]:
    """Whatever follows and is no member is passed over."""
    while data.startswith(_GZIP_MAGIC):
        member = zlib.decompressobj(_GZIP_WINDOW_BITS)
        yield member.decompress(data)
        data = member.unused_data


def _snappy_blocks(data: bytes) -> Iterator[bytes]:
    """One raw block, or the stream of xerial in any version.

    Its header may come again between two blocks, and less than a length at the end is passed over.
    """
    if not data.startswith(_XERIAL_MAGIC):
        yield bytes(cramjam.snappy.decompress_raw(data))
        return
    at = 0
    while at + 4 <= len(data):
        if data.startswith(_XERIAL_MAGIC, at):
            at += _XERIAL_HEADER_BYTES
            continue
        size = int.from_bytes(data[at : at + 4], "big")
        at += 4
        yield bytes(cramjam.snappy.decompress_raw(data[at : at + size]))
        at += size


def _lz4_blocks(data: bytes) -> Iterator[bytes]:
    """The blocks of the first frame, without its checksums; what follows is passed over.

    Magic (4 bytes), flags, block size, content size (8, by flag), header checksum; then blocks,
    each with its length before it and maybe a checksum (4, by flag) behind; a length of 0 ends it.
    """
    flags, room = data[4], bytearray(_LZ4_BLOCK_BYTES[data[5] >> 4 & 7])
    has_content_size, has_block_checksums = flags & 0x08, flags & 0x10
    at = 7 + (8 if has_content_size else 0)
    while size := int.from_bytes(data[at : at + 4], "little"):
        at += 4
        end = at + (size & ~_LZ4_STORED)
        block = data[at:end]
        if size & _LZ4_STORED:
            yield block
        else:
            filled = cramjam.lz4.decompress_block_into(block, room, output_len=len(room))
            yield bytes(room[:filled])
        at = end + (4 if has_block_checksums else 0)
