"""The parent of a benchmark's caller: the job that it gives, and the pipe to it."""

import itertools
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Orders:
    """The job of one caller. ``number`` identifies the caller at the service, ``run`` the repetition.

    ``limit_name`` is a Prefect concurrency limit. At each number of calls in ``report_at`` a line with memory
    and CPU is printed.
    """

    mechanism: str
    number: int
    run: str
    base_url: str
    rate_per_s: float
    ledger: str = ""
    limit_name: str = ""
    images: int = 0
    report_at: tuple[int, ...] = ()

    def urls(self) -> Iterator[str]:
        """Endless image URLs that no other caller has."""
        return (f"http://images.invalid/{self.run}/{self.number}/{n}.jpg" for n in itertools.count())


class Parent:
    """The pipe to the parent: its commands; its end ends this process."""

    def __init__(self) -> None:
        self.orders = Orders(**json.loads(sys.stdin.readline()))
        self._commands: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in sys.stdin:
            self._commands.put(line.strip())
        os._exit(1)

    def say(self, **what: object) -> None:
        """Send one line."""
        print(json.dumps(what), flush=True)

    def hear(self) -> str:
        """Wait for the next command."""
        return self._commands.get()

    def ready(self) -> None:
        """Report readiness, and wait for the start."""
        self.say(ready_s=time.monotonic())
        self.hear()
