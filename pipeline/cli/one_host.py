"""Commands that work on the disk of one host only refuse a store in a bucket, in one sentence.

What is not named here refuses: a command that came later would else go on in the folder of
RMOS_DATA_DIR, which is another store than the one that the settings name.
"""

import os
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from typer._click import Command

WORKS_IN_A_BUCKET: Final = frozenset(
    {
        *("api", "worker persist", "worker advisories", "worker advise"),
        *("worker audit", "worker all", "offsets reset", "attachments put", "doctor"),
        *("store init", "store check", "store upgrade", "store status", "store new-epoch"),
        *("ledger init", "ledger rotate"),
        *("runs list", "runs of-file", "runs show", "runs download", "runs draw", "runs diff"),
        *("runs advisories", "runs attachments", "runs verify", "runs export", "evidence"),
        *("ledger checkpoint", "ledger verify", "ledger prove", "ledger checksums", "ledger sums"),
        *("index check", "index rebuild", "archive create", "archive verify", "archive restore"),
        *("replay", "replay plan", "replay verify", "replay restore", "replay forward"),
        # These ask the broker, or nobody.
        *("topics apply", "topics check", "publish run", "publish advisory", "offsets show"),
        *("dead-letters list", "dead-letters show", "dead-letters export", "dead-letters redrive"),
        *("offsets undo", "peek", "settings", "schemas export", "audit file"),
        *("audit run", "audit report"),
    }
)

_VARIABLE: Final = "RMOS_STORE_URL"


def refuse_in_a_bucket(command: "Command", name: str) -> None:
    """Let `command` refuse a store that it cannot work on.

    Args:
        command: As it was imported.
        name: By which it is called, behind `rmos`.
    """
    if name not in WORKS_IN_A_BUCKET and command.callback is not None:
        command.callback = _refusing(command.callback, name)


def _refusing(callback: Callable[..., Any], name: str) -> Callable[..., Any]:
    @wraps(callback)
    def run(*given: Any, **named: Any) -> Any:  # noqa: ANN401  # as Typer calls it
        if any(each.upper() == _VARIABLE for each in os.environ):
            from pipeline.settings import read_settings, refuse_shared

            refuse_shared(read_settings(), f"rmos {name}")
        return callback(*given, **named)

    return run
