"""Ends a child of the tests as soon as their process is gone, however that ended.

A command whose tests were killed would otherwise go on: it waits patiently for a service and a Prefect server
that ended with them.
"""

import contextlib
import os
import select
import signal
import threading


def install() -> None:
    """Watch the process that ``TESTS_PID`` names; only Linux can wait for one that is no child."""
    pid = int(os.environ.get("TESTS_PID", "0"))
    if pid and pid != os.getpid() and hasattr(os, "pidfd_open"):
        threading.Thread(target=_end_with, args=(pid,), daemon=True).start()


def _end_with(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # if it is gone already
        select.select([os.pidfd_open(pid)], [], [])
    os.kill(os.getpid(), signal.SIGKILL)
