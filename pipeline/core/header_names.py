"""Header names that are not UTF-8, as text that becomes the same bytes again.

Kafka calls a header's name a string, and no broker checks it: clients on librdkafka send any
bytes. A byte that is not UTF-8 is held as a lone surrogate, as Python does it for file names, so
two different names are never one text.
"""

NAME_ERRORS = "surrogateescape"


def name_of_bytes(name: bytes) -> str:
    """Return a header's name as text."""
    return name.decode(errors=NAME_ERRORS)


def bytes_of_name(name: str) -> bytes:
    """Return the bytes that `name` was read from."""
    return name.encode(errors=NAME_ERRORS)
