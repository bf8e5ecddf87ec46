"""The writing steps of a run, counted as they are reached, and death by SIGKILL at a chosen one.

Steps are seen from outside the product: SQLAlchemy reports transactions, Python's audit hooks of files, and
the wrapped client of calls. Names: ``ledger:<transaction>:<committing|committed>``,
``call:<leaving|under_way|responded>``, ``file:<name|history>:<writing|syncing|renaming|renamed>``,
``scratch:<placed|screened|skipped|faces>:<appending|syncing>`` and ``clean``.
"""

import asyncio
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from s2v_tasks.domain.detect import DetectResponse, Request
from s2v_tasks.runtime.engine import Client

_TRANSACTIONS = (
    ("create", r"CREATE TABLE"),
    ("canonical_images", r"INSERT INTO canonical_images"),
    ("headers", r"INSERT INTO header_cache"),
    ("faces", r"UPDATE header_cache SET"),
    ("open_run", r"INSERT INTO runs|UPDATE runs SET owner"),
    ("beat", r"UPDATE runs SET heartbeat_us"),
    ("close_run", r"UPDATE runs SET status"),
    ("reserve", r"INSERT INTO attempts"),
    ("settle", r"UPDATE attempts SET"),
    (
        "postpone",
        r"UPDATE rate_limits SET[\s\S]*SELECT runs.owner|SELECT runs.owner[\s\S]*UPDATE rate_limits SET",
    ),
    ("slow_down", r"UPDATE rate_limits SET"),
)
"""The first pattern that a transaction's statements hold names it; one that changes nothing has no name."""
_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{8}\.tmp")
_DURABLE_SCRATCH = ("placed", "screened", "skipped", "faces")
_SAID, _NAME = "fire.said", "fire.name"


@dataclass
class CrashPoints:
    """Counts steps; at the ``occurrence``-th ``step`` the process kills itself."""

    step: str | None = None
    occurrence: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def reach(self, step: str) -> None:
        """Note a step; perhaps the last thing this process does."""
        self.counts[step] += 1
        if step == self.step and self.counts[step] == self.occurrence:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch_ledger(self) -> None:
        """Watch the transactions of every database of this process."""

        @sa.event.listens_for(sa.Engine, "before_cursor_execute")
        def _statement(
            connection: sa.Connection, _cursor: Any, statement: str, _values: Any, _context: Any, _many: bool
        ) -> None:
            connection.info.setdefault(_SAID, []).append(statement)

        @sa.event.listens_for(sa.Engine, "commit")
        def _commit(connection: sa.Connection) -> None:
            said = "\n".join(connection.info.pop(_SAID, ()))
            name = next((name for name, pattern in _TRANSACTIONS if re.search(pattern, said)), None)
            if name is not None:
                connection.info[_NAME] = name
                self.reach(f"ledger:{name}:committing")

        @sa.event.listens_for(sa.Pool, "checkin")
        def _checkin(_connection: Any, record: Any) -> None:
            record.info.pop(_SAID, None)
            if (name := record.info.pop(_NAME, None)) is not None:
                self.reach(f"ledger:{name}:committed")

    def watch_files(self, below: Path) -> None:
        """Watch what is put in place, and removed, below a folder."""
        renamed: dict[str, str] = {}

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if event not in {"open", "os.rename", "shutil.rmtree"} or not isinstance(
                arguments[0], str | os.PathLike
            ):
                return
            path = os.fspath(arguments[0])
            if not path.startswith(str(below)):
                return
            folder, name = os.path.split(path)
            if event == "open" and (scratch := Path(folder).name) in _DURABLE_SCRATCH:
                mode = arguments[1]
                if mode is None or mode.startswith("a"):
                    self.reach(f"scratch:{scratch}:{'appending' if mode else 'syncing'}")
            temporary = _TEMPORARY.fullmatch(name)
            shown = "history" if Path(folder).name == "history" else temporary and temporary[1]
            if event == "shutil.rmtree":
                self.reach("clean")
            elif event == "os.rename" and temporary:
                renamed[folder] = str(shown)
                self.reach(f"file:{shown}:renaming")
            elif event == "open" and temporary:
                self.reach(f"file:{shown}:{'writing' if arguments[1] else 'syncing'}")
            elif event == "open" and path in renamed:
                self.reach(f"file:{renamed.pop(path)}:renamed")

        sys.addaudithook(hook)


class WatchedClient:
    """A client whose calls are steps; what is sent is written to a file first, a URL a line."""

    def __init__(self, client: Client, points: CrashPoints, sends: Path) -> None:
        self._client = client
        self._points = points
        self._sends = os.open(sends, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def send(self, request: Request, on_written: Callable[[], None]) -> DetectResponse:
        """Make one call."""
        self._points.reach("call:leaving")
        os.write(self._sends, request.body + b"\n")
        call = asyncio.ensure_future(self._client.send(request, on_written))
        await asyncio.wait({call}, timeout=0.002)
        self._points.reach("call:under_way")
        response = await call
        self._points.reach("call:responded")
        return response
