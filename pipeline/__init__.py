"""RMOS Runs: run requests on Kafka become immutable artifacts on disk."""

from importlib.util import find_spec
from pathlib import Path


def _refuse_foreign_schemas() -> None:
    """Name the folder that is in the way, where Python finds other `schemas` than ours.

    Raises:
        ImportError: A folder or a module of that name comes first on the path.
    """
    ours = Path(__file__).resolve().parent.parent / "schemas"
    found = find_spec("schemas")
    places = [] if found is None else found.submodule_search_locations or [found.origin or ""]
    if not any(Path(place).resolve() == ours for place in places):
        raise ImportError(
            f"RMOS Runs needs its own package schemas in {ours}, found {list(places) or 'none'}: "
            "rename your folder or module schemas, or start Python elsewhere."
        )


_refuse_foreign_schemas()
