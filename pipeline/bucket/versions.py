"""Earlier versions of the objects of a bucket, and what a delete marker hides.

obstore cannot list them, so this alone takes boto3, and only where a bucket keeps versions. It
reads the same variables of the environment.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from pipeline.bucket.connection import ADDRESSES
from pipeline.bucket.url import BucketUrl
from pipeline.core.store.files import History
from pipeline.errors import StoreAwayError, StoreNotReadyError

if TYPE_CHECKING:
    from collections.abc import Iterable

_DENIED: Final = {"AccessDenied", "AllAccessDisabled", "InvalidAccessKeyId"}
_PIECE_BYTES: Final = 1 << 20


class Versions:
    """The versions of the objects below one prefix. Any number of threads may use it at once."""

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

    def histories(self, folder: str) -> Iterator[History]:
        """Yield each object below a folder that has another version, or a delete marker on top."""
        with self._faults():
            pages = self._client.get_paginator("list_object_versions").paginate(
                Bucket=self._url.bucket, Prefix=f"{self._prefix}{folder}/"
            )
            found: dict[str, _Found] = {}
            for page in pages:
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
            if each.is_hidden or each.count > 1:
                yield each.history(key.removeprefix(self._prefix))

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
                    f"The bucket {self._url} keeps versions and denies an audit to look at them "
                    f"({code}): let it s3:ListBucketVersions and s3:GetObjectVersion."
                ) from error
            raise self._away(code) from error
        except BotoCoreError as error:
            raise self._away(str(error)) from error

    def _away(self, why: str) -> StoreAwayError:
        return StoreAwayError(f"The versions of the bucket {self._url} cannot be read ({why}).")


class _Found:
    """What pages of a listing have of one key: its versions come newest first."""

    def __init__(self) -> None:
        self.count = 0
        self.is_hidden = False
        self._last: dict[str, Any] = {}
        self._first: dict[str, Any] = {}

    def add(self, version: dict[str, Any]) -> None:
        self.count += 1
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
