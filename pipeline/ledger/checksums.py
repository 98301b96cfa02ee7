"""Sums of a store: a line for `sha256sum -c` for each file, and one root over all of them.

A line is the SHA-256 in hex, two spaces and the path relative to the store's root. Lines are a
set: a file that several runs name has one line. The store root is the RFC 6962 root whose leaves
are the lines, in the order of their bytes, without newline. So it is a function of which files
there are to be, and not of when, in which order and by how many workers they were written.
"""

from collections.abc import Iterable

import msgspec

from pipeline.core.layout import attachment_path
from pipeline.ledger.tlog.errors import EvidenceError
from pipeline.ledger.tlog.merkle import leaf_hash, root_of_hashes


class _Attachment(msgspec.Struct):
    sha256: str


class _Artifact(msgspec.Struct):
    attachments: list[_Attachment]


class _Link(msgspec.Struct):
    content_sha256: str | None = None


# They skip all the rest, which is most of a file.
_artifact = msgspec.json.Decoder(_Artifact)
_link = msgspec.json.Decoder(_Link)


def sum_line(sha256: str, path: str) -> str:
    """Return the line of one file, without its newline."""
    return f"{sha256}  {path}"


def attachments_of_artifact(content: bytes) -> list[str]:
    """Return the SHA-256 of every attachment that an artifact names.

    Raises:
        EvidenceError: `content` is no artifact.
    """
    try:
        return [each.sha256 for each in _artifact.decode(content).attachments]
    except msgspec.DecodeError as error:
        raise EvidenceError(f"expected an artifact: {error}") from error


def attachments_of_link(content: bytes) -> list[str]:
    """Return the SHA-256 of the content that a link names, if it names one.

    Raises:
        EvidenceError: `content` is no link.
    """
    try:
        sha256 = _link.decode(content).content_sha256
    except msgspec.DecodeError as error:
        raise EvidenceError(f"expected a link: {error}") from error
    return [] if sha256 is None else [sha256]


def attachment_line(sha256: str) -> str:
    """Return the line of an attachment, whose name is its hash."""
    return sum_line(sha256, attachment_path(sha256))


def root_of_lines(lines: Iterable[str]) -> bytes:
    """Return the root over distinct lines, which come in the order of their bytes.

    Raises:
        EvidenceError: They come in another order.
    """
    return root_of_hashes(map(leaf_hash, _in_order(lines)))


def _in_order(lines: Iterable[str]) -> Iterable[bytes]:
    before = b""
    for line in lines:
        content = line.encode()
        if content <= before:
            raise EvidenceError(
                f"expected distinct lines in order, found {line} after {before.decode()}"
            )
        before = content
        yield content
