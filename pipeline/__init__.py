"""RMOS Runs: run requests on Kafka become immutable artifacts on disk.

`from pipeline import open_store` reads a store: `pipeline.store`, with the extra `server`.
"""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.store import open_store as open_store


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


# Imported when it is asked for: a producer has the base install, and no library for it.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Return `open_store`.

        Raises:
            ImportError: The extra `server` is not installed.
        """
        if name != "open_store":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            return import_module("pipeline.store").open_store
        except ModuleNotFoundError as error:
            raise ImportError(
                f"open_store needs the extra server, and there is no module {error.name}: "
                "pip install '.[server]' in the folder of the source of RMOS Runs."
            ) from error
