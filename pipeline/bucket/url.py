"""The URL of a bucket: `s3://bucket/prefix`; keys and region come from AWS's own variables."""

import re
from dataclasses import dataclass

from pipeline.errors import InputError

_URL = re.compile(
    # docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
    r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<prefix>[A-Za-z0-9._/-]*))?"
)


@dataclass(frozen=True, slots=True)
class BucketUrl:
    """Where a store lies.

    Attributes:
        bucket: Name of the bucket.
        prefix: What all keys of the store begin with, without `/` at its ends; may be empty.
    """

    bucket: str
    prefix: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


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
    return BucketUrl(found["bucket"], prefix)
