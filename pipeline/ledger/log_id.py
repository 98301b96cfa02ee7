"""The id of a log: one for each partition of a request topic in each epoch."""

import re
from typing import NamedTuple

from pipeline.ledger.tlog import EvidenceError

_PATH = re.compile(r"ledger/([1-9][0-9]{0,8})/([A-Za-z0-9._-]{1,249})-(0|[1-9][0-9]{0,9})")


class LogId(NamedTuple):
    """The log of one partition. Another epoch is another log: a new broker counts from zero."""

    epoch: int
    topic: str
    partition: int

    @property
    def path(self) -> str:
        """Its folder, relative to the store."""
        return f"ledger/{self.epoch}/{self.topic}-{self.partition}"

    def origin(self, store_id: str) -> str:
        """Return the first line of its checkpoints; store_id makes it unique in the world."""
        return f"rmos/{store_id}/{self.epoch}/{self.topic}/{self.partition}"


def signer_name(store_id: str) -> str:
    """Return the name under which a store signs the checkpoints of all its logs.

    tlog-checkpoint ("Signatures") recommends that the name of the key should be the origin. We sign
    every log of a store under one name, so that one vkey, handed out once, checks them all, also
    those of epochs to come. The signed first line of a checkpoint names its log.
    """
    return f"rmos/{store_id}"


def parse_log_path(path: str) -> LogId:
    """Return the log whose folder is at `path`.

    Raises:
        EvidenceError: No log has this path.
    """
    match = _PATH.fullmatch(path)
    if match is None:
        raise EvidenceError(f"expected the folder of a log, found {path!r}")
    return LogId(int(match[1]), match[2], int(match[3]))
