"""A process that helps another: it ends with it, and with nothing else."""

import ctypes
import multiprocessing
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def begin_helper() -> None:
    """Set up this process as a helper of the thread that started it.

    The thread: where that one ends, the kernel ends its helpers, so it must outlive their work.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        # Both reach a whole process group; the other still needs the helper to finish its work.
        signal.signal(number, signal.SIG_IGN)
    # One that is killed cannot stop its helper, so the kernel does (prctl(2)).
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    helped = multiprocessing.parent_process()
    if helped is not None and os.getppid() != helped.pid:
        # It was killed before we could ask the kernel: nobody would ever end us.
        os._exit(1)
    # Verdicts must not depend on the environment: our own limit of digits is the one that counts.
    sys.set_int_max_str_digits(0)
