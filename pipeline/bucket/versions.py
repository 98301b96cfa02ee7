"""The objects of a bucket as an audit sees them: every key, earlier versions, what markers hide.

obstore lists no versions, drops the slash that ends a key, and ends a listing at a key that is no
path (`a//b`). So this alone takes boto3, for audits alone. It reads the same variables of the
environment. Other clouds are listed by obstore.

A console makes an empty object `folder/` to show a folder: that is ignored. One with bytes is an
object as any.
"""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from pipeline.bucket.connection import ADDRESSES
from pipeline.bucket.objects import Objects
from pipeline.bucket.url import BucketUrl
from pipeline.core.store.files import History
from pipeline.errors import StoreAwayError, StoreNotReadyError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from obstore import ObjectMeta

_DENIED: Final = {"AccessDenied", "AllAccessDisabled", "InvalidAccessKeyId"}
_PIECE_BYTES: Final = 1 << 20


class AuditedObjects(Objects):
    """The objects of one bucket, listed by their keys; a path that ends in `/` is such a key."""

    @cached_property
    def versions(self) -> "Versions":
        """What boto3 lists."""
        return Versions(self.url)

    def close(self) -> None:
        """Close the connections too."""
        if "versions" in vars(self):
            self.versions.close()
        super().close()

    def names(self, folder: str) -> tuple[list[str], list[str]]:
        """Return the paths of the objects in a folder, and those of the folders in it, in order."""
        return self.versions.names(folder) if self.url.scheme == "s3" else super().names(folder)

    def each_below(self, folder: str, after: str | None = None) -> "Iterator[ObjectMeta]":
        """Yield every object below a folder; those behind the key `after`."""
        if self.url.scheme == "s3":
            return self.versions.objects(folder, after)
        return super().each_below(folder, after)

    async def listed(self, folder: str) -> tuple[list[str], list[str]]:
        """Return what `names` returns, for many at once."""
        return await asyncio.to_thread(self.names, folder)

    async def is_folder(self, folder: str) -> bool:
        """Return whether any path begins with a folder."""
        return await asyncio.to_thread(lambda: any(True for _ in self.each_below(folder)))


class Versions:
    """Keys and versions below one prefix. Any number of threads may use it at once."""

    def __init__(self, url: BucketUrl) -> None:
        import boto3  # noqa: PLC0415  # half a second
        from botocore.config import Config  # noqa: PLC0415

        endpoint = next(filter(None, map(os.environ.get, ADDRESSES["s3"])), None)
        self._url = url
        self._prefix = f"{url.prefix}/" if url.prefix else ""
        self._client = boto3.session.Session().client(
            "s3",
            endpoint_url=endpoint,
            region_name=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
            config=Config(
                connect_timeout=10,
                read_timeout=30,
                retries={"mode": "standard", "total_max_attempts": 6},
                # As obstore addresses a bucket.
                s3={"addressing_style": "path"},
                max_pool_connections=64,
            ),
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def objects(self, folder: str, after: str | None = None) -> "Iterator[ObjectMeta]":
        """Yield each object below a folder, in the order of the keys; those behind `after`."""
        start = {} if after is None else {"StartAfter": f"{self._prefix}{after}"}
        for page in self._pages("list_objects_v2", folder, **start):
            for each in page.get("Contents", ()):
                if not _is_marker(each["Key"], each["Size"]):
                    yield {
                        "path": self._path(each["Key"]),
                        "size": each["Size"],
                        "last_modified": each["LastModified"],
                        "e_tag": each["ETag"],
                        "version": None,
                    }

    def names(self, folder: str) -> tuple[list[str], list[str]]:
        """Return the paths of the objects in a folder, and those of the folders in it, in order."""
        objects, folders = list[str](), list[str]()
        for page in self._pages("list_objects_v2", folder, Delimiter="/"):
            for each in page.get("Contents", ()):
                if not _is_marker(each["Key"], each["Size"]):
                    objects.append(self._path(each["Key"]))
            for each in page.get("CommonPrefixes", ()):
                path = self._path(each["Prefix"])
                # A folder without a name keeps its slash, which no path of ours ends with.
                is_nameless = path == "/" or path.endswith("//")
                folders.append(path if is_nameless else path.removesuffix("/"))
        return sorted(objects), sorted(folders)

    def _pages(self, request: str, folder: str, **options: str) -> Iterator[dict[str, Any]]:
        prefix = f"{self._prefix}{folder}{'/' if folder and folder[-1] != '/' else ''}"
        with self._faults():
            yield from self._client.get_paginator(request).paginate(
                Bucket=self._url.bucket, Prefix=prefix, **options
            )

    def _path(self, key: str) -> str:
        return key.removeprefix(self._prefix) or "/"

    def histories(self, folder: str) -> Iterator[History]:
        """Yield each object below a folder that has another version, or a delete marker on top."""
        found: dict[str, _Found] = {}
        for page in self._pages("list_object_versions", folder):
            for each in page.get("Versions", ()):
                found.setdefault(each["Key"], _Found()).add(each)
            for each in page.get("DeleteMarkers", ()):
                found.setdefault(each["Key"], _Found()).is_hidden |= each["IsLatest"]
            # The versions of the last key may go on in the next page.
            yield from self._changed(found, sorted(found)[:-1])
        yield from self._changed(found, sorted(found))

    def _changed(self, found: "dict[str, _Found]", keys: "Iterable[str]") -> Iterator[History]:
        for key in keys:
            each = found.pop(key)
            if (each.is_hidden or each.count > 1) and not _is_marker(key, each.size_bytes):
                yield each.history(self._path(key))

    def newest(self, path: str, most: int) -> list[str]:
        """Return the last versions of one object, the newest first."""
        with self._faults():
            page = self._client.list_object_versions(
                Bucket=self._url.bucket, Prefix=f"{self._prefix}{path}", MaxKeys=most
            )
        found = page.get("Versions", ())
        return [each["VersionId"] for each in found if each["Key"] == f"{self._prefix}{path}"]

    def read(self, path: str, version: str) -> Iterator[bytes]:
        """Yield the bytes of a version."""
        with self._faults():
            found = self._client.get_object(
                Bucket=self._url.bucket, Key=f"{self._prefix}{path}", VersionId=version
            )
            yield from found["Body"].iter_chunks(_PIECE_BYTES)

    @contextmanager
    def _faults(self) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        try:
            yield
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in _DENIED:
                raise StoreNotReadyError(
                    f"The bucket {self._url} denies an audit to list keys or versions ({code}): "
                    "let it s3:ListBucket, and where versions are kept s3:ListBucketVersions and "
                    "s3:GetObjectVersion."
                ) from error
            raise self._away(code) from error
        except BotoCoreError as error:
            raise self._away(str(error)) from error

    def _away(self, why: str) -> StoreAwayError:
        return StoreAwayError(f"The bucket {self._url} does not list what it has ({why}).")


def _is_marker(key: str, size_bytes: int) -> bool:
    return key.endswith("/") and not size_bytes


class _Found:
    """What pages of a listing have of one key: its versions come newest first."""

    def __init__(self) -> None:
        self.count = 0
        self.size_bytes = 0
        self.is_hidden = False
        self._last: dict[str, Any] = {}
        self._first: dict[str, Any] = {}

    def add(self, version: dict[str, Any]) -> None:
        self.count += 1
        self.size_bytes += version["Size"]
        self._last = self._last or version
        self._first = version

    def history(self, path: str) -> History:
        first, last = self._first, self._last
        return History(
            path,
            versions=self.count,
            is_hidden=self.is_hidden,
            first=first.get("VersionId", ""),
            last=last.get("VersionId", ""),
            may_be_same=first.get("Size") == last.get("Size"),
        )
