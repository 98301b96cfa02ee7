"""The connection to a bucket: how its server is called, and what a version of an object is."""

import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

import obstore
from obstore.exceptions import AlreadyExistsError, PreconditionError
from obstore.store import AzureStore, GCSStore, S3Store

from pipeline.bucket.faults import bucket_faults
from pipeline.bucket.url import BucketUrl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from obstore import ListResult, ObjectMeta, PutMode, PutResult, UpdateVersion
    from obstore.store import ClientConfig, RetryConfig

REFUSALS: Final = (AlreadyExistsError, PreconditionError)
"""A condition is not met, or so it was answered. Some servers say the one, some the other."""

_RETRIES: Final = 5

ADDRESSES: Final = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
"""Variables that name a server other than the cloud's own."""

_SIGNED_HEADERS: Final[dict[str, dict[str, str]]] = {
    "s3": {},
    "az": {"x-ms-blob-type": "BlockBlob"},
}
"""What a signed PUT has beside its condition. That of Google is a header that the signature must
cover, and those of obstore cover none (cloud.google.com/storage/docs/authentication)."""


class Patience(NamedTuple):
    """How long a bucket is waited for.

    Attributes:
        first_pause: Before what failed or was refused is tried again; later ones are longer, with
            jitter.
        request: For one request, with its body and its answer.
        retrying: From the first try of a request to its last. Longer than that no batch is held
            up: it is put off, as where the broker does not answer.
    """

    first_pause: timedelta = timedelta(milliseconds=100)
    request: timedelta = timedelta(seconds=10)
    retrying: timedelta = timedelta(seconds=30)


USUAL: Final = Patience()


class Connection:
    """One bucket below one prefix; the paths of its objects are relative to that.

    Any number of threads may use it at once. Errors are those of obstore, until `faults`
    translates them.

    Attributes:
        url: Its URL.
        name: The same, for people.
        store: What obstore calls it by.
    """

    def __init__(self, url: BucketUrl, patience: Patience = USUAL) -> None:
        """Prepare; nothing is sent.

        Args:
            url: Of the bucket.
            patience: How long it is waited for.
        """
        self.url = url
        self.name = str(url)
        self.store = _opened(url, patience)
        self._signed = _SIGNED_HEADERS.get(url.scheme)

    def signed_headers(self, condition: "PutMode") -> dict[str, str] | None:
        """Return the headers of a signed PUT with a condition; None where it cannot have one."""
        if self._signed is None:
            return None
        if isinstance(condition, dict):
            return {**self._signed, "If-Match": condition["e_tag"] or ""}
        return {**self._signed, "If-None-Match": "*"}

    def faults(self) -> AbstractContextManager[None]:
        """Translate a fault of the bucket into StoreError while the block runs."""
        return bucket_faults(self.name)

    def names(self, folder: str) -> tuple[list[str], list[str]]:
        """Return the paths of the objects in a folder, and those of the folders in it, in order."""
        return names_of(folder, obstore.list_with_delimiter(self.store, folder or None))

    def each_below(self, folder: str, after: str | None = None) -> "Iterator[ObjectMeta]":
        """Yield every object below a folder, 1,000 of one request; those behind the key `after`."""
        for found in obstore.list(self.store, folder or None, offset=after, chunk_size=1000):
            yield from (each for each in found if each["path"] != folder)


def names_of(folder: str, found: "ListResult[Sequence[ObjectMeta]]") -> tuple[list[str], list[str]]:
    """Return the paths of the objects and of the folders that were listed, in order."""
    # A console makes an empty object `folder/` to show a folder; it has the path of the folder.
    objects = sorted(path for each in found["objects"] if (path := each["path"]) != folder)
    return objects, sorted(found["common_prefixes"])


def version_of(found: "PutResult | ObjectMeta") -> str:
    """Return both marks of a version as text: some servers compare the one, some the other."""
    marks = {"e_tag": found["e_tag"], "version": found["version"]}
    return json.dumps({name: mark for name, mark in marks.items() if mark is not None})


def replacing(version: str) -> "UpdateVersion":
    """Return the condition of a PUT that replaces this version alone."""
    condition: UpdateVersion = json.loads(version)
    return condition


def _opened(url: BucketUrl, patience: Patience) -> S3Store | GCSStore | AzureStore:
    prefix = url.prefix or None
    options: ClientConfig = {"allow_http": _is_plain(url.scheme), "timeout": patience.request}
    retries: RetryConfig = {
        "max_retries": _RETRIES,
        "retry_timeout": patience.retrying,
        "backoff": {"init_backoff": patience.first_pause},
    }
    if url.scheme != "s3":
        kind = GCSStore if url.scheme == "gs" else AzureStore
        return kind(url.bucket, prefix=prefix, client_options=options, retry_config=retries)
    return S3Store(
        url.bucket,
        prefix=prefix,
        # The server refuses bytes that were damaged on the way; Object Lock demands it.
        checksum_algorithm="sha256",
        # Not every server has the request that deletes many.
        disable_bulk_delete=True,
        client_options=options,
        retry_config=retries,
    )


def _is_plain(scheme: str) -> bool:
    """Return whether the operator names a server without TLS."""
    return any(os.environ.get(name, "").startswith("http://") for name in ADDRESSES[scheme])
