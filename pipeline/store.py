"""The store from Python: runs of a folder, read, checked and typed by the schemas.

    from pipeline import open_store

    with open_store("/srv/rmos") as store:
        for item in store.runs(RunFilter(status="BLOCKED")):
            why = store.run(item.run_id).decision.block_reason

It asks no broker and no API. It writes no record: RunPublisher and AdvisoryPublisher do. It needs
the extra `server`.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Self, TypeVar

from pydantic import BaseModel, ValidationError

from pipeline.core.json.canonical import canonical_json
from pipeline.errors import StoreError
from pipeline.settings import read_settings
from pipeline.storage.reader import RunReader, open_reader
from pipeline.storage.store import open_to_read
from schemas.http_answers import (
    AdvisoriesAnswer,
    AttachmentsAnswer,
    RunItem,
    RunPageAnswer,
    RunView,
    VerificationAnswer,
)
from schemas.run_diff import RunDiff
from schemas.run_filter import RunFilter

Shape = TypeVar("Shape", bound=BaseModel)


def open_store(data_dir: Path | str | None = None) -> "OpenStore":
    """Open a store for reading, while workers write it or not; the caller closes it.

    Args:
        data_dir: Its folder; None for the store that the settings name.

    Raises:
        StoreNotReadyError: There is no store, or its index is missing or damaged.
        InputError: A setting has a value that it cannot have.
    """
    if data_dir is not None:
        return OpenStore(open_reader(Path(data_dir)))
    return OpenStore(RunReader(open_to_read(read_settings())))


class OpenStore:
    """A store, opened for reading; any number of threads may use it at once.

    It answers what the API answers, and withholds what the API withholds. What takes a run_id
    raises NotFoundError (404) where there is no such run; ArchivedError (410) where its file is
    archived; IntegrityError (500) where its file is missing or has other bytes, or no record
    explains it; StoreError (503) where the disk or the index cannot be read, or holds what a later
    release wrote.
    """

    def __init__(self, reader: RunReader) -> None:
        self._reader = reader

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the index."""
        self._reader.close()

    def run(self, run_id: str) -> RunView:
        """Return a run, its file hashed again, with its advisories; look at `status`."""
        return _typed(RunView, self._reader.show(self._reader.find(run_id)).content)

    def runs(self, wanted: RunFilter | None = None) -> Iterator[RunItem]:
        """Yield every run that fits, newest first; artifacts are not opened.

        Args:
            wanted: None for all. Its `limit` is how many are read at a time.

        Raises:
            InputError: The cursor is none of ours.
            StoreError: The index cannot be read.
        """
        wanted = wanted or RunFilter()
        while True:
            page = _typed(RunPageAnswer, self._reader.list_runs(wanted).content())
            yield from page.items
            if page.next_cursor is None:
                return
            wanted = wanted.model_copy(update={"cursor": page.next_cursor})

    def advisories(self, run_id: str) -> AdvisoriesAnswer:
        """Return the advisories of a run, oldest first."""
        return _typed(AdvisoriesAnswer, canonical_json(self._reader.advisories(run_id)))

    def attachments(self, run_id: str) -> AttachmentsAnswer:
        """Return the attachments that a run lists, in its order."""
        return _typed(AttachmentsAnswer, canonical_json(self._reader.attachments_of(run_id)))

    def open_attachment(self, run_id: str, sha256: str) -> BinaryIO:
        """Open an attachment, all of its bytes hashed before; the caller closes it.

        Args:
            run_id: A run that names it, itself or by one of its advisories.
            sha256: Its name.

        Raises:
            NotFoundError: Also where the run names no such blob, withholds it, or it never came.
            IntegrityError: Also where the blob is not what was stored.
        """
        named = self._reader.named_blob(run_id, sha256)
        blob = self._reader.attachments.open(named.sha256)
        with ExitStack() as stack:
            stack.callback(blob.close)
            with self._reader.store.faults():
                blob.refuse_changed()
            stack.pop_all()
        # The file that was hashed, whatever has its name by now.
        return open(blob.descriptor, "rb")  # noqa: PTH123

    def verify(self, run_id: str) -> VerificationAnswer:
        """Read every byte of a run and of its attachments; what an attachment lacks is no error."""
        return _typed(VerificationAnswer, canonical_json(self._reader.verify_attachments(run_id)))

    def diff(self, a: str, b: str) -> RunDiff:
        """Return how run `b` differs from run `a`; `a` is looked for first."""
        return _typed(RunDiff, canonical_json(self._reader.diff(a, b)))


def _typed(shape: type[Shape], content: bytes) -> Shape:
    try:
        return shape.model_validate_json(content)
    except ValidationError as error:
        raise StoreError(
            f"The store holds something else than a {shape.__name__} of this release: install the "
            f"release of its workers ({error.error_count()} differences)."
        ) from error
