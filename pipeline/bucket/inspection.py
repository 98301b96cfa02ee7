"""What an audit asks about the files of a store in a bucket.

A listing has the names and sizes of a thousand objects for the price of twelve questions.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from threading import Lock
from typing import TYPE_CHECKING

from pipeline.bucket.objects import Objects
from pipeline.bucket.open_object import OpenObject
from pipeline.bucket.versions import AuditedObjects
from pipeline.core.store.files import FileState, FoundName, History

if TYPE_CHECKING:
    from obstore import ObjectMeta


class BucketFolder:
    """A folder of a bucket: what its keys begin with."""

    def __init__(self, objects: Objects, path: str, first: str, last: str) -> None:
        self._objects = objects
        self._path = path
        self._between = first, last
        self._states: dict[str, FileState] | None = None
        self._listing = Lock()

    def state(self, name: str) -> FileState | None:
        """Return the state of an object, by a listing of all that may be asked for."""
        with self._listing:
            if self._states is None:
                self._states = self._listed()
        return self._states.get(name)

    def _listed(self) -> dict[str, FileState]:
        first, last = (f"{self._path}/{name}" for name in self._between)
        # The server yields what comes behind a key, and what a key begins with comes before it.
        found = self._objects.each_below(self._path, after=first[:-1])
        wanted = takewhile(lambda each: each["path"] <= last, found)
        return {each["path"].removeprefix(f"{self._path}/"): _state(each) for each in wanted}

    @contextmanager
    def opened(self, name: str) -> Iterator[tuple[FileState, Callable[[], bytes]]]:
        """Give the state of an object, and what reads all of it.

        Raises:
            FileNotFoundError: There is none.
        """
        found = self._objects.opened(f"{self._path}/{name}")
        yield _state(found.meta), lambda: bytes(found.bytes())


def _state(found: "ObjectMeta") -> FileState:
    return FileState(found["size"], None)


class BucketInspection:
    """What an audit asks about the files of a store in a bucket."""

    def __init__(self, objects: AuditedObjects) -> None:
        self._objects = objects

    @contextmanager
    def folder(self, path: str, first: str, last: str) -> Iterator[BucketFolder]:
        """Give what all keys of a folder begin with: without an object there is nothing in it."""
        yield BucketFolder(self._objects, path, first, last)

    @contextmanager
    def opened(self, path: str) -> Iterator[tuple[OpenObject, None] | None]:
        """Hold an object open; None where there is nothing."""
        try:
            found = self._objects.opened(path)
        except FileNotFoundError:
            yield None
        else:
            yield OpenObject(self._objects, path, found.meta), None

    def each_name(self, folder: str) -> Iterator[str]:
        """Yield the paths of all objects below a folder, from there."""
        for found in self._objects.each_below(folder):
            yield found["path"].removeprefix(f"{folder}/")

    def below(self, folder: str, _descends: Callable[[str], bool]) -> Iterator[FoundName]:
        """Yield all objects below a folder, in order."""
        for found in self._objects.each_below(folder):
            yield FoundName(found["path"], is_folder=False)

    def mode(self, _path: str) -> None:
        """Return that there are no modes."""

    def kind_of(self, _path: str) -> str:
        """Return what every object is."""
        return "a file"

    def is_own(self, _path: str, *, is_folder: bool) -> bool:
        """Return that nothing of the store is beside its files."""
        del is_folder
        return False

    def keeps_versions(self, paths: Iterable[str]) -> bool:
        """Return whether the server has given any of these objects a version."""
        if self._objects.url.scheme != "s3":
            return False  # boto3 knows no others.
        found = self._objects.each(self._objects.meta, paths).values()
        # `null` is what was made while versions were not kept.
        return any(each is not None and each["version"] not in {None, "null"} for each in found)

    def histories(self, folder: str) -> Iterator[History]:
        """Yield each object below a folder that has more than one version, or is hidden."""
        return self._objects.versions.histories(folder)

    def newest_versions(self, path: str, most: int) -> list[str]:
        """Return the last versions of an object, the newest first."""
        return self._objects.versions.newest(path, most)

    def read_version(self, path: str, version: str) -> Iterator[bytes]:
        """Yield the bytes of a version."""
        return self._objects.versions.read(path, version)
