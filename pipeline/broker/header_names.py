"""Header names that are not UTF-8, as text that becomes the same bytes again.

Kafka calls a header's name a string, and no broker checks it: clients on librdkafka send any
bytes. A byte that is not UTF-8 is held as a lone surrogate, as Python does it for file names, so
two different names are never one text.
"""

from collections.abc import Sequence
from typing import Any

from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import DefaultRecordBatch, _DefaultRecordBatchBuilderPy

_ERRORS = "surrogateescape"


def name_of_bytes(name: bytes) -> str:
    """Return a header's name as text."""
    return name.decode(errors=_ERRORS)


def bytes_of_name(name: str) -> bytes:
    """Return the bytes that `name` was read from."""
    return name.encode(errors=_ERRORS)


class AnyNameBatch(BatchBuilder):  # type: ignore[misc]
    """A batch whose records may have header names of any bytes.

    aiokafka's fast builder encodes a name strictly, and takes nothing but a `str`. Its builder in
    pure Python asks the name itself to be encoded.
    """

    def __init__(self, size_bytes: int, *, transactional: bool = False) -> None:
        """Begin a batch of `size_bytes`; a larger record is alone in it."""
        lz4 = DefaultRecordBatch.CODEC_LZ4
        super().__init__(size_bytes, lz4)
        self._builder = _DefaultRecordBatchBuilderPy(
            2,
            lz4,
            is_transactional=int(transactional),
            producer_id=-1,
            producer_epoch=-1,
            base_sequence=0,
            batch_size=size_bytes,
        )

    def append(
        self,
        *,
        timestamp: int | None,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes | None]] = (),
    ) -> Any:  # noqa: ANN401 - aiokafka has no types
        """Add a record; None where there is no room for it."""
        named = [(_AnyName(name), content) for name, content in headers]
        return super().append(timestamp=timestamp, key=key, value=value, headers=named)

    def _set_producer_state(self, producer_id: int, producer_epoch: int, sequence: int) -> None:
        # Like the original, which asserts that the builder is the fast one.
        self._builder.set_producer_state(producer_id, producer_epoch, sequence)


class _AnyName(str):
    """A name that is encoded to the bytes that it was read from."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = _ERRORS) -> bytes:
        return super().encode(encoding, errors)
