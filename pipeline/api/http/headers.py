"""Range requests: which bytes a client wants (RFC 9110 section 14)."""

import re
from dataclasses import dataclass

# More digits than any file needs, and few enough for every reader.
_ONE_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes of a whole, from `first` to before `end`."""

    first: int
    end: int
    size_bytes: int

    @property
    def length(self) -> int:
        """How many bytes."""
        return self.end - self.first

    @property
    def content_range(self) -> str:
        """The header that says which they are."""
        return f"bytes {self.first}-{self.end - 1}/{self.size_bytes}"


class UnsatisfiableRangeError(Exception):
    """No byte of the whole lies in the range that was asked for."""


def parse_range(header: str | None, size_bytes: int) -> ByteRange | None:
    """Return the one range that `header` asks for; None where the whole is to be sent.

    A header of another form, or of several ranges, may be ignored, and is.

    Raises:
        UnsatisfiableRangeError: It begins behind the end.
    """
    found = _ONE_RANGE.fullmatch(header.strip()) if header is not None else None
    if found is None or found[0] == "bytes=-":
        return None
    first, last = found.groups()
    if not first:
        begin, end = max(size_bytes - int(last), 0), size_bytes
    else:
        begin, end = int(first), min(int(last) + 1, size_bytes) if last else size_bytes
        if last and int(last) < begin:
            return None
    if begin >= size_bytes:
        raise UnsatisfiableRangeError
    return ByteRange(begin, end, size_bytes)
