"""Servers of buckets, for the contracts that hold there too."""

from tests.bucket.conftest import moto, versitygw

__all__ = ["moto", "versitygw"]
