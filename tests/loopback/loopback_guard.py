"""Keeps a Python process on this machine.

Connections beyond loopback and look-ups of other names are refused. Each attempt is appended to the file
named by ``TESTS_BLOCKED_LOG``, so that a test can check for any.
"""

import contextlib
import ipaddress
import os
import socket
from typing import Any

_getaddrinfo = socket.getaddrinfo


class Blocked(socket.gaierror):
    """A test tried to leave this machine; an ``OSError``, as an unplugged network would raise."""


def _is_loopback(host: Any) -> bool:
    try:
        return ipaddress.ip_address(str(host).partition("%")[0]).is_loopback
    except ValueError:
        return host in ("", "localhost")


def _needs_no_lookup(host: Any) -> bool:
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    if name is None or name.lower().rstrip(".") in ("", "localhost"):
        return True
    with contextlib.suppress(OSError, UnicodeError):
        return bool(_getaddrinfo(name, None, flags=socket.AI_NUMERICHOST))
    return False


def _refuse(what: str) -> None:
    if log := os.environ.get("TESTS_BLOCKED_LOG"):
        with open(log, "a", encoding="utf-8") as file:  # noqa: PTH123  (nothing more is imported)
            file.write(f"{os.getpid()} {what}\n")
    raise Blocked(socket.EAI_NONAME, f"tests stay on this machine: {what}")


def _guarded(call: Any) -> Any:
    def guarded(self: socket.socket, address: Any) -> Any:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(address[0]):
            _refuse(f"connect to {address}")
        return call(self, address)

    return guarded


def _guarded_lookup(call: Any) -> Any:
    def lookup(host: Any, *args: Any, **kwargs: Any) -> Any:
        if not _needs_no_lookup(host):
            _refuse(f"resolve {host!r}")
        return call(host, *args, **kwargs)

    return lookup


def install() -> None:
    """Guard this process; a second time does nothing."""
    if getattr(socket, "s2v_tests_guard", False):
        return
    socket.s2v_tests_guard = True  # type: ignore[attr-defined]
    for name in ("connect", "connect_ex"):
        setattr(socket.socket, name, _guarded(getattr(socket.socket, name)))
    for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex"):
        setattr(socket, name, _guarded_lookup(getattr(socket, name)))
