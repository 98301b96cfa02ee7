"""A fault of a bucket in one sentence: of the network, which passes, or of its owner to mend."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

from pipeline.errors import StoreAwayError, StoreNotReadyError

_NO_BUCKET = ("<Code>NoSuchBucket</Code>", "<Code>ContainerNotFound</Code>")
_STRANGE_KEY = "object with invalid path"
_STATUS = re.compile(r"status code: (?P<status>\d{3} [A-Za-z ]+)")


@contextmanager
def bucket_faults(name: str) -> Iterator[None]:
    """Translate the errors of obstore about the bucket `name`.

    Raises:
        StoreAwayError: It has no answer for now; the same may succeed later.
        StoreNotReadyError: There is no such bucket, it denies us what we ask for, or a key that it
            lists is no path.
    """
    try:
        yield
    except FileNotFoundError as error:
        refuse_missing_bucket(name, error)
        raise
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise StoreNotReadyError(
            f"The bucket {name} denies access ({reason_of(error)}): give this process keys that "
            "may read, list, create and replace there (AWS_ACCESS_KEY_ID, or that of its cloud, "
            "or a role)."
        ) from error
    except BaseError as error:
        refuse_missing_bucket(name, error)
        if _STRANGE_KEY in str(error):
            raise StoreNotReadyError(
                f"The bucket {name} has an object whose key is no path ({reason_of(error)}): "
                "another program has put it there; remove it."
            ) from error
        raise StoreAwayError(
            f"The bucket {name} does not answer ({reason_of(error)}); nothing was acknowledged."
        ) from error


def refuse_missing_bucket(name: str, error: Exception) -> None:
    """Tell a bucket that is not there from a key that is not there.

    Raises:
        StoreNotReadyError: There is no such bucket.
    """
    if any(code in str(error) for code in _NO_BUCKET):
        raise StoreNotReadyError(
            f"There is no bucket at {name}: make it, or correct its URL."
        ) from error


def reason_of(error: Exception) -> str:
    """Return what a person can use of an error: the status, else its first line."""
    status = status_of(error)
    return status or str(error).partition("\n")[0]


def status_of(error: Exception) -> str:
    """Return the HTTP status that is in the text of an error, with its words; nothing if none."""
    found = _STATUS.search(str(error))
    return found["status"] if found else ""
