"""Files in memory, for tests: what a store that is no disk promises, and nothing of a disk."""

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext

from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.store.files import (
    Creation,
    ExpectedFile,
    FoundName,
    Item,
    NewFile,
    NotAFileError,
    Presence,
    Result,
    WrittenAhead,
)


class OpenBytes:
    """A file that was opened; a later change of its name changes nothing here."""

    descriptor = -1

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.size_bytes = len(content)

    def read(self, offset: int, limit_bytes: int) -> bytes:
        """Return some of its bytes."""
        return self._content[offset : offset + limit_bytes]

    def close(self) -> None:
        """Do nothing."""


class MemoryUpload:
    """A file on its way in."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        self._contents = contents
        self._pieces = b""

    def write(self, piece: bytes) -> None:
        """Add some bytes."""
        self._pieces += piece

    def publish(self, path: str) -> bool:
        """Create the file."""
        created = path not in self._contents
        self._contents.setdefault(path, self._pieces)
        return created

    def end(self) -> None:
        """Do nothing."""


class MemoryFiles:
    """Files by their paths, as one bucket would have them."""

    name = "memory"
    group_commits = True

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}

    def faults(self) -> AbstractContextManager[None]:
        """Translate nothing."""
        return nullcontext()

    def write(self, files: Iterable[NewFile]) -> WrittenAhead:
        """Write nothing ahead."""
        del files
        return ExitStack[None]()

    def create(
        self, files: Iterable[NewFile], written: WrittenAhead | None = None
    ) -> dict[str, Creation]:
        """Create each file whose path is free and whose needs are met."""
        closing: AbstractContextManager[object] = written or nullcontext()
        creations: dict[str, Creation] = {}
        with closing:
            for file in files:
                creations[file.path] = self._create(file, creations)
        return creations

    link = create

    def _create(self, file: NewFile, creations: dict[str, Creation]) -> Creation:
        if any(creations[path] is Creation.DIFFERENT for path in file.needs):
            return Creation.NOT_MADE
        found = self.contents.get(file.path)
        if found is None:
            self.contents[file.path] = file.content
            return Creation.CREATED
        return Creation.SAME if found == file.content else Creation.DIFFERENT

    def presence(self, expected: Iterable[ExpectedFile]) -> dict[str, Presence]:
        """Compare each file with its hash."""
        return {file.path: self._presence_of(file) for file in expected}

    def _presence_of(self, expected: ExpectedFile) -> Presence:
        content = self.contents.get(expected.path)
        if content is None:
            return Presence.MISSING
        same = sha256_of_bytes(content) == expected.sha256
        return Presence.SAME if same else Presence.DIFFERENT

    def present(self, paths: Iterable[str]) -> set[str]:
        """Return those that are keys."""
        return set(paths) & self.contents.keys()

    readable = present

    def has_folder(self, folder: str) -> bool:
        """Return whether a path begins with it."""
        return any(path.startswith(f"{folder}/") for path in self.contents)

    def paths_below(self, folder: str) -> Iterator[str]:
        """Yield the paths that begin with it."""
        start = f"{folder}/" if folder else ""
        return iter(sorted(path for path in self.contents if path.startswith(start)))

    def at_once(
        self, function: Callable[[Item], Result], items: Iterable[Item]
    ) -> Iterator[Result]:
        """Ask for one after the other."""
        return map(function, items)

    def names(self, folder: str) -> list[FoundName]:
        """Return the next part of each path, as a listing by a delimiter does."""
        start = f"{folder}/" if folder else ""
        below = (path.removeprefix(start) for path in self.contents if path.startswith(start))
        found = {(start + name, bool(more)) for name, more, _ in (p.partition("/") for p in below)}
        return [FoundName(*each) for each in sorted(found)]

    def written_ns(self, folder: str) -> dict[str, int]:
        """Return that all files of a folder are of one moment."""
        return {each.path: 0 for each in self.names(folder) if not each.is_folder}

    def read(self, path: str, limit_bytes: int) -> bytes:
        """Return the bytes of a key."""
        if path not in self.contents:
            raise FileNotFoundError(path)
        if len(self.contents[path]) > limit_bytes:
            raise NotAFileError(f"a file of {len(self.contents[path])} bytes")
        return self.contents[path]

    def open(self, path: str) -> OpenBytes:
        """Open the bytes of a key."""
        return OpenBytes(self.read(path, 1 << 62))

    def begin_upload(self) -> MemoryUpload:
        """Begin a file of any size."""
        return MemoryUpload(self.contents)

    def remove(self, paths: Collection[str]) -> None:
        """Remove keys."""
        for path in paths:
            self.contents.pop(path, None)
