"""Which attachments of a run are not in the store at the moment.

Their absence changes nothing of the run: they may be uploaded at any time.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.core.layout import attachment_path
from pipeline.disk.regular_files import is_regular_below


def missing_attachments(root: Path, document: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the SHA-256 of each attachment without a file, sorted; no file is read.

    Args:
        root: Folder of the store.
        document: The artifact of the run, or its index fields.
    """
    named = {ref["sha256"] for ref in document["attachments"]}
    return tuple(
        sorted(sha256 for sha256 in named if not is_regular_below(root, attachment_path(sha256)))
    )
