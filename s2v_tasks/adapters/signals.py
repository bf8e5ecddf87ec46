"""SIGINT, SIGTERM and a closed terminal: a wish to stop, in order."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any


@contextlib.contextmanager
def stopping(stop: Callable[[str], None]) -> Iterator[None]:
    """Call ``stop`` with the name of a signal, once; a second one is handled as before."""
    loop = asyncio.get_running_loop()
    before: dict[signal.Signals, Any] = {}

    def restore(number: signal.Signals) -> None:
        loop.remove_signal_handler(number)
        signal.signal(number, before.pop(number))

    def heard(number: signal.Signals) -> None:
        restore(number)
        stop(number.name)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        with contextlib.suppress(ValueError, RuntimeError):  # only the main thread hears signals
            handler: Callable[[int, FrameType | None], Any] | int | None = signal.getsignal(number)
            loop.add_signal_handler(number, heard, number)
            before[number] = handler
    try:
        yield
    finally:
        for number in tuple(before):
            restore(number)
