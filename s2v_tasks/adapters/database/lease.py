"""Leases: the process that holds a run, identified by its host, process id and start time."""

import hashlib
import os
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from s2v_tasks.domain.ledger import Scope
from s2v_tasks.domain.rate_limit import SECOND_US
from s2v_tasks.settings import OnLostResponse

HEARTBEAT_S: Final = 2.0
DEAD_AFTER_S: Final = 15.0

_held: Final[set[str]] = set()
"""The tokens of the leases under which this process works. The database has more if an end was not stored."""


@dataclass(frozen=True, slots=True)
class LeaseOwner:
    """A process. ``token`` is unique for each lease it takes; the start time tells a reused process id."""

    token: str
    host: str
    pid: int
    process_start: str

    @classmethod
    def current(cls) -> "LeaseOwner":
        """This process, for a new lease."""
        owner = cls(secrets.token_hex(8), _host(), os.getpid(), _start(psutil.Process()))
        _held.add(owner.token)
        return owner

    def let_go(self) -> None:
        """Work no more under this lease, whether or not the database could store its end."""
        _held.discard(self.token)

    @property
    def is_gone(self) -> bool:
        """Whether the process is known to have ended, or let go of the lease; False on another host."""
        if self.host != _host():
            return False
        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE or _start(process) != self.process_start:
                return True
        except psutil.NoSuchProcess:
            return True
        return self.pid == os.getpid() and self.token not in _held


@dataclass(frozen=True, slots=True)
class Lease:
    """A run that this process holds, and the budget it draws on."""

    run_id: str
    owner: LeaseOwner
    budget: str
    scope: Scope
    on_lost_response: OnLostResponse


def is_dead(run: Mapping[Any, Any], now_us: int) -> bool:
    """Whether the process that holds a run is known to have ended, or has been silent for too long.

    ``run``: its row, with the columns of the owner and ``heartbeat_us``; microseconds on the ledger's clock.
    """
    owner = LeaseOwner(run["owner"], run["host"], run["pid"], run["process_start"])
    # A heartbeat a moment ahead was written after the clock was read; far ahead, it is from before a restart.
    age_us = abs(now_us - run["heartbeat_us"])
    return owner.is_gone or age_us > DEAD_AFTER_S * SECOND_US


def _host() -> str:
    """Where process ids mean the same: the host's name and, on Linux, its boot and process id namespace.

    Containers may share a name (a host's network, a fixed one), and there each other's ids mean nothing.
    """
    name = socket.gethostname()
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        ids = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return name
    return f"{name} {hashlib.sha256((boot + ids).encode()).hexdigest()[:8]}"


def _start(process: psutil.Process) -> str:
    # Seconds after boot: unlike the time of day, it stays the same when the wall clock is set.
    return f"{process.create_time() - psutil.boot_time():.2f}"
