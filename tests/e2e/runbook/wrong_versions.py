"""Versions of the program that are wrong in one way each, as a deployment brings them.

A version is a folder before the program on Python's path; its `sitecustomize` changes one
function, in the worker and in the processes that judge for it.
"""

from pathlib import Path

OTHER_BYTES = """
from msgspec import structs

from pipeline.core.runs import verdict

judged_run = verdict.judged_run

def with_a_version(run_id, created_at_utc, built):
    content = built.content.replace(
        b'"request_sha256"', b'"rendered_by":"1.4","request_sha256"', 1
    )
    return judged_run(run_id, created_at_utc, structs.replace(built, content=content))

verdict.judged_run = with_a_version
"""

FAILS_ON_GOOD_RECORDS = """
from pipeline.core.runs import verdict

def fails(*args, **options):
    raise ZeroDivisionError

verdict.judged_run = fails
"""

ONE_SCRIPT_MORE = """
from pipeline.postgres import scripts

known = scripts.scripts

def one_more():
    own = known()
    return [*own, scripts.Script(len(own) + 1, "-- A table more.\\nCREATE TABLE later ();")]

scripts.scripts = one_more
"""


def install(
    opt: Path, wrong: str, *, after: str = "rmos-after", before: str = "rmos-before"
) -> None:
    """Make two versions below `opt`; `after`, in use, is the wrong one."""
    (opt / before).mkdir(parents=True)
    (opt / after).mkdir()
    (opt / after / "sitecustomize.py").write_text(wrong, encoding="utf-8")
    (opt / "rmos").symlink_to(opt / after)
