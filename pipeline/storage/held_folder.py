"""Checkpoints that somebody else holds, given to audits in a folder.

They are taken at their word, whoever signed them: a log that was made anew with another key must
be found, and whoever may write this folder is trusted with what it says.
"""

from collections.abc import Iterator
from pathlib import Path

from pipeline.core.held_checkpoints import parse_held
from pipeline.errors import InputError
from pipeline.ledger.tlog.checkpoints import Checkpoint
from pipeline.ledger.tlog.errors import EvidenceError


def held_checkpoints(folder: Path | None) -> list[Checkpoint]:
    """Return the checkpoints in the files of `folder`, in order; none where there is no folder.

    Raises:
        InputError: A file is none of held checkpoints, or cannot be read.
    """
    return [] if folder is None else list(_read(folder))


def _read(folder: Path) -> Iterator[Checkpoint]:
    path = folder
    try:
        for path in sorted(each for each in folder.iterdir() if not each.name.startswith(".")):
            yield from (held.checkpoint for held in parse_held(path.read_bytes()))
    except OSError as error:
        message = f"{path} cannot be read for held checkpoints: {error.strerror}."
        raise InputError(message) from error
    except EvidenceError as error:
        message = f"{path} has no held checkpoints: {error}."
        raise InputError(message) from error
