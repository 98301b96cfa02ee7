"""The URL of a bucket: `s3://bucket/prefix`, `gs://` or `az://`.

Keys, region and address come from the variables of the cloud's own programs.
"""

import re
from dataclasses import dataclass

from pipeline.errors import InputError

_URL = re.compile(
    # docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html; the others have no
    # name that is longer.
    r"(?P<scheme>s3|gs|az)://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<prefix>[A-Za-z0-9._/-]*))?"
)


@dataclass(frozen=True, slots=True)
class BucketUrl:
    """Where a store lies.

    Attributes:
        scheme: `s3`, `gs` for Google Cloud Storage, `az` for Azure Blob Storage.
        bucket: Name of the bucket; in Azure of the container.
        prefix: What all keys of the store begin with, without `/` at its ends; may be empty.
    """

    scheme: str
    bucket: str
    prefix: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.prefix}".rstrip("/")


def parse_bucket_url(text: str) -> BucketUrl:
    """Return what a URL names.

    Raises:
        InputError: It is none of a bucket.
    """
    found = _URL.fullmatch(text)
    prefix = ((found and found["prefix"]) or "").removesuffix("/")
    # A name that is empty or a dot is another key to one program than to the next.
    if found is None or (prefix and {"", ".", ".."} & set(prefix.split("/"))):
        raise InputError(f"Expected the URL of a bucket such as s3://shop/rmos, found {text!r}.")
    return BucketUrl(found["scheme"], found["bucket"], prefix)
