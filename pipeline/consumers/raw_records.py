"""Raw records through FastStream: nothing is decoded before our own code has seen it.

FastStream decodes every header as UTF-8 before the handler, and its own parser fails for the
whole batch where one value is not. So the parser is given no headers, and the handler gets the
records as the broker sent them.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeAlias

from aiokafka import ConsumerRecord
from faststream.kafka.message import KafkaMessage

Record: TypeAlias = ConsumerRecord
Records: TypeAlias = tuple[Record, ...]


async def parse_raw(
    records: Records, original: Callable[[Records], Awaitable[KafkaMessage]]
) -> KafkaMessage:
    """Wrap a batch as FastStream's message, without looking into any record."""
    # The envelope alone is FastStream's; the message's records decide what a nack rewinds.
    message = await original((replace(records[0], headers=()),))
    message.raw_message = records
    return message


async def decode_raw(message: KafkaMessage) -> list[Any]:
    """Hand the records themselves to the handler."""
    return list(message.raw_message)
