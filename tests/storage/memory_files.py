"""Files in memory, for tests: what a store that is no disk promises, and nothing of a disk."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Self

from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.store.files import Creation, ExpectedFile, NewFile, Presence, WrittenAhead


class NothingWritten:
    """What was written ahead where nothing can be: `create` writes all of it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Do nothing."""


class MemoryFiles:
    """Files by their paths, as one bucket would have them; several may share one `contents`."""

    def __init__(self, contents: dict[str, bytes] | None = None) -> None:
        self.contents = {} if contents is None else contents

    def write(self, files: Iterable[NewFile]) -> WrittenAhead:
        """Write nothing ahead."""
        del files
        return NothingWritten()

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
