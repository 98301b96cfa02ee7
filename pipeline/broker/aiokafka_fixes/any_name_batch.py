"""A batch that keeps header names which are not UTF-8."""

from collections.abc import Sequence
from typing import Any

from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import DefaultRecordBatch, _DefaultRecordBatchBuilderPy

from pipeline.core.dead_letters.carried_record import NAME_ERRORS


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

    def encode(self, encoding: str = "utf-8", errors: str = NAME_ERRORS) -> bytes:
        return super().encode(encoding, errors)
