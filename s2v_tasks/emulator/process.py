"""Runs the emulator in a child process, for tests and the demo."""

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO, cast
from urllib.parse import urlsplit

from s2v_tasks.emulator.faults import Fault, parse_faults
from s2v_tasks.emulator.invoice import CallsReport, InvoiceLine
from s2v_tasks.emulator.options import EmulatorOptions
from s2v_tasks.errors import UsageError

_CLOSE_TIMEOUT_S = 5.0
_CONTROL_TIMEOUT_S = 30.0


class Emulator:
    """An emulator process, running while the ``with`` block does.

    The child exits with this process, in whatever way that ends: its standard input is a pipe of this
    process, and end of file ends it. It has a session of its own, so only this process receives a Ctrl-C.

    Raises:
        UsageError: On entering, the child could not start; the message has the reason.
    """

    def __init__(self, options: EmulatorOptions | None = None) -> None:
        self.options = options or EmulatorOptions()
        self._child: subprocess.Popen[str] | None = None
        self._base_url = ""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> Self:
        """Start the child and wait until it responds; `close` ends it.

        Raises:
            UsageError: The child could not start.
        """
        if self._child is not None:
            raise UsageError("this emulator was started before. Create another one")
        self._child = subprocess.Popen(
            [sys.executable, "-m", "s2v_tasks.emulator"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=_environment(),
        )
        stdin, stdout = cast("TextIO", self._child.stdin), cast("TextIO", self._child.stdout)
        with suppress(BrokenPipeError):  # it exited at once; the line read below is then empty
            stdin.write(self.options.to_json() + "\n")
            stdin.flush()
        line = stdout.readline().strip()
        if not line.startswith("http"):
            self.close()
            raise UsageError(
                line or "the emulator's process ended before it was ready. See its standard error"
            )
        self._base_url = line
        return self

    @property
    def base_url(self) -> str:
        """The base URL for a client, ending in ``/api/v1``."""
        return self._base_url

    @property
    def origin(self) -> str:
        """Scheme, host and port, for the sample images and the routes beside the API."""
        parts = urlsplit(self._base_url)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def pid(self) -> int:
        """The child's process id.

        Raises:
            UsageError: The emulator was not started.
        """
        if self._child is None:
            raise UsageError("the emulator was not started")
        return self._child.pid

    def invoice(self) -> list[InvoiceLine]:
        """Every billed call so far."""
        return cast("list[InvoiceLine]", json.loads(self._send("GET", "/invoice")))

    def calls(self) -> CallsReport:
        """Counters and arrival times so far."""
        return cast("CallsReport", json.loads(self._send("GET", "/calls")))

    def set_faults(self, faults: Iterable[Fault | str]) -> None:
        """Replace the faults, records or their text; an empty list ends them.

        Raises:
            UsageError: A fault is invalid.
        """
        self._send("PUT", "/faults", json.dumps([fault.spec for fault in parse_faults(faults)]))

    def reset(self) -> None:
        """Clear invoice and counters; faults stay."""
        self._send("POST", "/reset")

    def kill(self) -> None:
        """End the child by SIGKILL, as a power cut would."""
        if self._child is not None:
            self._child.kill()
            self.close()

    def close(self) -> None:
        """End the child and wait for it; may be called again."""
        if self._child is None:
            return
        with suppress(BrokenPipeError):  # it ended already
            cast("TextIO", self._child.stdin).close()
        try:
            self._child.wait(_CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        cast("TextIO", self._child.stdout).close()

    def _send(self, method: str, path: str, body: str | None = None) -> bytes:
        # http.client: no proxy from the environment, and nothing heavy to import.
        parts = urlsplit(self._base_url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_CONTROL_TIMEOUT_S)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        if response.status >= 400:
            raise UsageError(f"the emulator refused {method} {path}: {content.decode(errors='replace')}")
        return content


def _environment() -> dict[str, str]:
    """This process's environment, with this package importable in the child."""
    root = Path(__file__).parents[2]
    if root.name in {"site-packages", "dist-packages"}:
        return dict(os.environ)
    paths = [str(root), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
