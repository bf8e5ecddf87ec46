"""The command in this process: what it sets for the rest of its process is put back."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def unchanged_process() -> Iterator[None]:
    """Put back standard output, which ``--json`` keeps for the result, environment and signals."""
    stdout, kept, handlers = sys.stdout, os.dup(1), {number: signal.getsignal(number) for number in _SIGNALS}
    environment = dict(os.environ)
    try:
        yield
    finally:
        put_back(environment)
        sys.stdout = stdout
        os.dup2(kept, 1)
        os.close(kept)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def put_back(environment: dict[str, str]) -> None:
    """Touch only what differs: an added variable moves the table that threads of polars read (SIGSEGV)."""
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    for name, value in environment.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
