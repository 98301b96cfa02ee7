"""A stream of items cut into chunks of bounded number and size, in their order."""

from collections.abc import AsyncGenerator, Callable, Hashable
from contextlib import aclosing
from typing import TypeVar

Item = TypeVar("Item")


async def in_chunks(
    items: AsyncGenerator[Item, None],
    size_of: Callable[[Item], int],
    *,
    most: int,
    most_bytes: int,
    group_of: Callable[[Item], Hashable] = lambda _: None,
) -> AsyncGenerator[list[Item], None]:
    """Yield `items` in chunks; a single item above the limit is a chunk of its own.

    Args:
        items: The stream; closed at the end.
        size_of: Gives the bytes that an item counts for.
        most: Most items of a chunk.
        most_bytes: Most bytes of a chunk.
        group_of: Gives what the items of one chunk have in common.
    """
    chunk: list[Item] = []
    size_bytes = 0
    async with aclosing(items):
        async for item in items:
            length = size_of(item)
            if chunk and (
                len(chunk) == most
                or size_bytes + length > most_bytes
                or group_of(item) != group_of(chunk[0])
            ):
                yield chunk
                chunk, size_bytes = [], 0
            chunk.append(item)
            size_bytes += length
    if chunk:
        yield chunk
