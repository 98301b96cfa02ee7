"""An audit worker that SIGKILL ends at one step of its first audit, which is named in a word."""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from pipeline.app.audit import app
from pipeline.app.process import run_service
from pipeline.audit.journal import AuditJournal
from pipeline.audit.worker import handler as audit_handler
from pipeline.audit.worker.requests import AuditRequests
from pipeline.broker.sending.batches import BatchSender
from pipeline.logs import configure_logging
from pipeline.settings import read_settings

# A step is a function, the call of it that counts, and whether it ends before or after.
STEPS: dict[str, tuple[Any, str, int, bool]] = {
    "a finding sent": (BatchSender, "send", 1, False),
    "a finding written": (AuditJournal, "add", 1, False),
    "one day done": (AuditJournal, "finish_part", 2, False),
    "report written": (audit_handler, "write_report", 1, False),
    "report sent": (AuditRequests, "_commit", 1, True),
}


def kill_at(owner: Any, name: str, count: int, *, before: bool) -> None:
    """Make this process kill itself at a step."""
    original = getattr(owner, name)
    left = [count]

    def passing() -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, _killing(original, passing, before=before))


def _killing(original: Callable[..., Any], passing: Callable[[], None], *, before: bool) -> Any:
    if original.__code__.co_flags & 0x80:  # a coroutine

        async def awaited(*args: Any) -> Any:
            if before and _is_handled(args):
                passing()
            result = await original(*args)
            if not before:
                passing()
            return result

        return awaited

    def called(*args: Any) -> Any:
        result = original(*args)
        passing()
        return result

    return called


def _is_handled(args: tuple[Any, ...]) -> bool:
    """The loop comes by `_commit` at every poll; only one with something to commit counts."""
    return bool(args[0]._handled)


if __name__ == "__main__":
    owner, name, count, before = STEPS[sys.argv[1]]
    kill_at(owner, name, count, before=before)
    settings = read_settings()
    configure_logging(settings)
    run_service(app.serve(settings))
