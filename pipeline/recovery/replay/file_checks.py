"""Files of a store looked at one by one, and which paths were asked for. Nothing is written."""

import errno
import hashlib
import os
from array import array
from bisect import bisect_left
from pathlib import Path

from pipeline.disk.durable_files import DurableFiles, NewFile, Presence
from pipeline.disk.regular_files import NotAFileError, open_below

_READ_BYTES = 1 << 20
_DIGEST_BYTES = 8
UNREADABLE = "something that cannot be read"


class PathDigests:
    """A large set of paths, in eight bytes each.

    The digests have a random key: who may write files cannot choose a path that looks like one
    of the others. By chance one of 10 million foreign files would, in a million million stores.
    """

    def __init__(self) -> None:
        self._key = os.urandom(16)
        self._digests = array("Q")
        self._is_sorted = True

    def add(self, path: str) -> None:
        """Add a path; one that is there may be added again."""
        self._digests.append(self._digest(path))
        self._is_sorted = False

    def __contains__(self, path: str) -> bool:
        if not self._is_sorted:
            self._digests = array("Q", sorted(self._digests))
            self._is_sorted = True
        digest = self._digest(path)
        place = bisect_left(self._digests, digest)
        return place < len(self._digests) and self._digests[place] == digest

    def _digest(self, path: str) -> int:
        name = path.encode(errors="surrogateescape")
        digest = hashlib.blake2b(name, digest_size=_DIGEST_BYTES, key=self._key).digest()
        return int.from_bytes(digest, "big")


class FileChecks:
    """Looks at the files of one store.

    Attributes:
        asked_for: Every path that a record, or something that it made, explains.
    """

    def __init__(self, root: Path) -> None:
        self.asked_for = PathDigests()
        self._root = root
        self._files = DurableFiles(root)
        self._uploads: dict[str, str | None] = {}

    def presence_of(self, file: NewFile) -> Presence:
        """Tell what is where `file` should be.

        Raises:
            OSError: We may not or cannot look.
        """
        self.asked_for.add(file.path)
        return self._files.presence_of(file)

    def sha256_of(self, path: str) -> str | None:
        """Return the hash of a file, in words what else there is, or None where there is nothing.

        Raises:
            OSError: We may not or cannot look.
        """
        self.asked_for.add(path)
        return self.sha256_of_any(path)

    def sha256_of_upload(self, path: str) -> str | None:
        """Return the same of a blob that many may name: it is read once."""
        if path not in self._uploads:
            self._uploads[path] = self.sha256_of(path)
        return self._uploads[path]

    def sha256_of_any(self, path: str) -> str | None:
        """Return the same of a file that nothing explains."""
        try:
            descriptor, _ = open_below(self._root, path)
            with open(descriptor, "rb") as file:  # noqa: PTH123  # a descriptor, not a path
                return hashlib.file_digest(file, "sha256").hexdigest()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except NotAFileError:
            return UNREADABLE
        except OSError as error:
            if error.errno == errno.EIO:
                return UNREADABLE
            raise
