"""Open files and sockets of this process: how many more it may have. macOS allows 256 by default."""

import contextlib
import os
import resource
from typing import Final

_WANTED: Final = 4096
_RESERVED: Final = 64
"""For the ledger, the API's connections, Prefect and files."""


def room() -> int:
    """How many more files and sockets screening may open; raises the soft limit first, if it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED if hard == resource.RLIM_INFINITY else min(_WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    limit = _WANTED if soft == resource.RLIM_INFINITY else soft
    return max(0, limit - _open_now() - _RESERVED)


def _open_now() -> int:
    with contextlib.suppress(OSError):
        return len(os.listdir("/dev/fd"))  # noqa: PTH208
    return _RESERVED
