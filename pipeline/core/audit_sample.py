"""Which files a sampled audit reads: a share of them that follows from audit_id and path."""

from hashlib import sha256
from typing import Final

SAMPLE_SHARE: Final = 0.1
"""One file in ten, where the caller says nothing else."""

_WHOLE: Final = 1 << 64


def is_sampled(audit_id: str, path: str, share: float = SAMPLE_SHARE) -> bool:
    """Tell whether this audit reads the file at `path`.

    The same audit_id reads the same files, whatever else is in the store. Whoever knows the
    audit_id beforehand knows them too.
    """
    digest = sha256(f"{audit_id}\n{path}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") < share * _WHOLE
