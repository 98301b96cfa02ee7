"""Decompression as the broker's own Java does it, so that every accepted batch can be read.

The broker unpacks every batch before it takes it, and so does this; but Java passes over bytes
after the end and over some checksums where the decoders of aiokafka give up. Tried with Kafka
4.3.1; no usual client sends such a batch.

A batch of 5 MiB can hold many gigabytes of zeros. So `largest_size` finds how much
there may be, up to a bound, and `inflate` unpacks piece by piece.
"""

import zlib
from collections.abc import Iterator

import cramjam
from aiokafka.record.default_records import DefaultRecordBatch

PIECE_BYTES = 1024 * 1024
"""So much of gzip and zstd is unpacked at a time; of lz4 a block, at most 4 MiB, of snappy a block,
which the format makes at most 22 times as large as it is packed."""

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WINDOW_BITS = 31
_DEFLATE_RATIO = 1032
"""The most that deflate can do: 258 bytes for two bits."""

_XERIAL_MAGIC = b"\x82SNAPPY\0"
_XERIAL_HEADER_BYTES = 16
_LZ4_BLOCK_BYTES = {4: 1 << 16, 5: 1 << 18, 6: 1 << 20, 7: 1 << 22}
_LZ4_STORED = 1 << 31
_LZ4_RATIO = 255
"""The most that lz4 can do: one byte stands for 255 more of the same."""


def inflate(codec: int, data: bytes) -> Iterator[bytes]:
    """Yield what the broker saw in `data`, in pieces of bounded size.

    Args:
        codec: The codec of a batch's attributes.
        data: The batch without its header.
    """
    if codec == DefaultRecordBatch.CODEC_GZIP:
        return _gzip_pieces(data)
    if codec == DefaultRecordBatch.CODEC_SNAPPY:
        return (bytes(cramjam.snappy.decompress_raw(block)) for block in _snappy_blocks(data))
    if codec == DefaultRecordBatch.CODEC_LZ4:
        return _lz4_pieces(data)
    if codec == DefaultRecordBatch.CODEC_ZSTD:
        return _zstd_pieces(data)
    return iter((data,))


def largest_size(codec: int, data: bytes, enough: int) -> int:
    """Return a size that `data` cannot exceed when it is unpacked, near to its true size.

    Deflate does not record it, and zstd need not: these are unpacked and counted.

    Args:
        codec: The codec of a batch's attributes.
        data: The batch without its header.
        enough: Any size above this is as good as another.
    """
    if codec == DefaultRecordBatch.CODEC_GZIP:
        largest = _DEFLATE_RATIO * len(data)
        return largest if largest <= enough else _counted(_gzip_pieces(data), enough)
    if codec == DefaultRecordBatch.CODEC_SNAPPY:
        return sum(map(cramjam.snappy.decompress_raw_len, _snappy_blocks(data)))
    if codec == DefaultRecordBatch.CODEC_LZ4:
        return sum(
            len(block) if is_stored else min(room, _LZ4_RATIO * len(block))
            for block, is_stored, room in _lz4_blocks(data)
        )
    if codec == DefaultRecordBatch.CODEC_ZSTD:
        return _counted(_zstd_pieces(data), enough)
    return len(data)


def _gzip_pieces(data: bytes) -> Iterator[bytes]:
    """Whatever follows and is no member is passed over."""
    while data.startswith(_GZIP_MAGIC):
        member = zlib.decompressobj(_GZIP_WINDOW_BITS)
        while data and not member.eof:
            piece = member.decompress(data, PIECE_BYTES)
            data = member.unconsumed_tail
            if piece:
                yield piece
        data = member.unused_data


def _counted(pieces: Iterator[bytes], enough: int) -> int:
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > enough:
            break
    return size


def _snappy_blocks(data: bytes) -> Iterator[bytes]:
    """One raw block, or the stream of xerial in any version.

    Its header may come again between two blocks, and less than a length at the end is passed over.
    """
    if not data.startswith(_XERIAL_MAGIC):
        yield data
        return
    at = 0
    while at + 4 <= len(data):
        if data.startswith(_XERIAL_MAGIC, at):
            at += _XERIAL_HEADER_BYTES
            continue
        size = int.from_bytes(data[at : at + 4], "big")
        at += 4
        yield data[at : at + size]
        at += size


def _lz4_pieces(data: bytes) -> Iterator[bytes]:
    room = bytearray()
    for block, is_stored, size in _lz4_blocks(data):
        if is_stored:
            yield block
        else:
            room = room or bytearray(size)
            filled = cramjam.lz4.decompress_block_into(block, room, output_len=size)
            yield bytes(room[:filled])


def _lz4_blocks(data: bytes) -> Iterator[tuple[bytes, bool, int]]:
    """The blocks of the first frame, without its checksums; what follows is passed over.

    Magic (4 bytes), flags, block size, content size (8, by flag), header checksum; then blocks,
    each with its length before it and maybe a checksum (4, by flag) behind; a length of 0 ends it.

    Returns:
        Of each its bytes, whether they are stored as they are, and how many there can be at most.
    """
    flags, room = data[4], _LZ4_BLOCK_BYTES[data[5] >> 4 & 7]
    has_content_size, has_block_checksums = flags & 0x08, flags & 0x10
    at = 7 + (8 if has_content_size else 0)
    while size := int.from_bytes(data[at : at + 4], "little"):
        at += 4
        end = at + (size & ~_LZ4_STORED)
        yield data[at:end], bool(size & _LZ4_STORED), room
        at = end + (4 if has_block_checksums else 0)


def _zstd_pieces(data: bytes) -> Iterator[bytes]:
    # Imported where it is needed: most processes meet no such batch.
    from zstandard import ZstdDecompressor  # noqa: PLC0415

    reader = ZstdDecompressor().stream_reader(data, read_across_frames=True)
    while piece := reader.read(PIECE_BYTES):
        yield piece
