"""Versions of the program that are wrong in one way each, as a deployment brings them.

A version is a folder before the program on Python's path; its `sitecustomize` changes one
function, in the worker and in the processes that judge for it.
"""

from pathlib import Path

OTHER_BYTES = """
from pipeline.core.runs import artifact

provenance_of = artifact.provenance_of

def with_a_version(*args, **options):
    return provenance_of(*args, **options) | {"rendered_by": "1.4"}

artifact.provenance_of = with_a_version
"""

FAILS_ON_GOOD_RECORDS = """
from pipeline.core.runs import artifact

def fails(*args, **options):
    raise ZeroDivisionError

artifact.judge_safety = fails
"""


def install(
    opt: Path, wrong: str, *, after: str = "rmos-after", before: str = "rmos-before"
) -> None:
    """Make two versions below `opt`; `after`, in use, is the wrong one."""
    (opt / before).mkdir(parents=True)
    (opt / after).mkdir()
    (opt / after / "sitecustomize.py").write_text(wrong, encoding="utf-8")
    (opt / "rmos").symlink_to(opt / after)
