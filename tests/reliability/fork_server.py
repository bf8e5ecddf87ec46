"""Children in no time: a process that has everything imported, and forks itself for each job.

As a program it reads a JSON list of jobs per line, forks a child for each, waits for all and prints the
list of their ends: the exit status, or minus the number of the signal. A child that takes too long is killed
(its end is then ``TOO_LONG``). The end of its input ends it.
"""

import gc
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Self

TOO_LONG = 1000
TIMEOUT_S = 120.0

Job = dict[str, Any]
"""``module``: whose function ``run`` does the job; ``log``: a file for what goes wrong; more of its own."""


class ForkServer:
    """The program, started for some modules; use it as a context manager."""

    def __init__(self, *modules: str) -> None:
        self._modules = modules

    def __enter__(self) -> Self:
        # No certificates: reading the usual ones takes each child a tenth of a second, for nothing.
        environment = {**os.environ, "SSL_CERT_DIR": os.devnull}
        environment.pop("SSL_CERT_FILE", None)
        self._process = subprocess.Popen(
            [sys.executable, __file__, *self._modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def run(self, *jobs: Job) -> list[int]:
        """Do some jobs at once, a process each, and give their ends."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(jobs) + "\n")
        self._process.stdin.flush()
        response = self._process.stdout.readline()
        assert response, "the fork server died"
        ends: list[int] = json.loads(response)
        return ends


def _child(job: Job) -> None:
    status = 1
    try:
        import_module(job["module"]).run(job)
        status = 0
    except BaseException:  # noqa: BLE001  (it must not run on as a second server)
        Path(job["log"]).write_text(traceback.format_exc(), "utf-8")
    os._exit(status)


def _wait_all(pids: list[int]) -> list[int]:
    ends: dict[int, int] = {}
    until = time.monotonic() + TIMEOUT_S
    while len(ends) < len(pids):
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            ends.setdefault(pid, os.waitstatus_to_exitcode(status))
        elif time.monotonic() > until:
            for late in set(pids) - set(ends):
                os.kill(late, signal.SIGKILL)
                os.waitpid(late, 0)
                ends[late] = TOO_LONG
        else:
            time.sleep(0.002)
    return [ends[pid] for pid in pids]


def _serve() -> None:
    for module in sys.argv[1:]:
        import_module(module)
    gc.freeze()  # a collection in a child would copy the pages of all that is imported
    for line in sys.stdin:
        pids = []
        for job in json.loads(line):
            pid = os.fork()
            if not pid:
                _child(job)
            pids.append(pid)
        sys.stdout.write(json.dumps(_wait_all(pids)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
