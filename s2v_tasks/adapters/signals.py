"""SIGINT, SIGTERM and SIGHUP: a request to stop in order, heard by every curation of the process."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any
from weakref import WeakKeyDictionary

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_listeners: list[tuple[asyncio.AbstractEventLoop, Callable[[str], None]]] = []
_before: dict[signal.Signals, Any] = {}
_heard: "WeakKeyDictionary[asyncio.AbstractEventLoop, signal.Signals]" = WeakKeyDictionary()
"""The signal that an event loop has heard; SIGINT until its last curation ends: a notebook goes on."""


@contextlib.contextmanager
def on_stop_signal(stop: Callable[[str], None]) -> Iterator[None]:
    """Call ``stop`` with the name of a signal, in this event loop; a second signal is handled as before.

    The handlers belong to the process: listeners come and go in any order, and one that comes after the
    signal hears it too. A signal that the process ignores stays ignored (``nohup``, background jobs).
    """
    loop = asyncio.get_running_loop()
    listener = (loop, stop)
    _listeners.append(listener)
    install()
    if (heard := _heard.get(loop)) is not None:
        loop.call_soon(stop, heard.name)
    try:
        yield
    finally:
        _listeners.remove(listener)
        if not _listeners:
            _restore(*_before)
            if _heard.get(loop) is signal.SIGINT:
                del _heard[loop]


def install() -> None:
    """Install the handlers, again where others have replaced them: Prefect does, as flows begin and end."""
    heard = _heard.get(asyncio.get_running_loop())
    for number in STOPPING:
        before = signal.getsignal(number)
        if number == heard or before in (signal.SIG_IGN, None, _on_signal):
            continue
        with contextlib.suppress(ValueError):  # only the main thread may set handlers
            signal.signal(number, _on_signal)
            _before[number] = before


def _restore(*numbers: signal.Signals) -> None:
    for number in numbers:
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, _before.pop(number, default))


def _on_signal(number: int, _frame: FrameType | None) -> None:
    heard = signal.Signals(number)
    _restore(heard)
    if not _listeners:  # put back by Prefect after the last one had left
        signal.raise_signal(heard)
    for loop, stop in _listeners:
        _heard[loop] = heard
        loop.call_soon_threadsafe(stop, heard.name)
