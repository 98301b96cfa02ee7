"""Servers of buckets, for the contracts that hold there too."""

from tests.bucket.conftest import azurite, gcs, moto, versitygw

__all__ = ["azurite", "gcs", "moto", "versitygw"]
