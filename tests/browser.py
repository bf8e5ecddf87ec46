"""A headless Chromium without a network: opens files at a width and a colour scheme, runs scripts in them."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from websockets.sync.client import ClientConnection, connect

ARGUMENTS: Final = (
    "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND", "--remote-debugging-port=0", "about:blank",
)  # fmt: skip
"""No sandbox: in a container there is none, and the pages are the tests' own."""
LONGEST_S: Final = 60


class Page:
    """The browser's one page, over its debugging protocol; ``requests``: the URLs that it requested."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._calls = 0
        self.requests: list[str] = []
        self.errors: list[str] = []
        self._loads = 0
        for domain in ("Page", "Network", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def open(self, path: Path, width: int = 1280, scheme: str = "light") -> None:
        """Load a file; ``width`` in CSS pixels."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self._call("Emulation.setDeviceMetricsOverride", **size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._call("Emulation.setEmulatedMedia", media="", features=features)
        wanted = self._loads + 1
        self._call("Page.navigate", url=path.as_uri())
        while self._loads < wanted:
            self._receive()

    def print_at(self, width: int) -> None:
        """Lay the page out as it is printed, on paper of a width in CSS pixels."""
        size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", **size)
        self._call("Emulation.setEmulatedMedia", media="print")

    def run(self, script: str) -> Any:
        """The value of an expression in the page, as JSON; a promise is awaited."""
        found = self._call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """Press and release a key."""
        for kind in ("rawKeyDown", "keyUp"):
            self._call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._calls += 1
        self._connection.send(json.dumps({"id": self._calls, "method": method, "params": parameters}))
        while (message := self._receive()).get("id") != self._calls:
            pass
        assert "error" not in message, message
        result: dict[str, Any] = message["result"]
        return result

    def _receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._connection.recv(timeout=LONGEST_S))
        method, parameters = message.get("method"), message.get("params", {})
        self._loads += method == "Page.loadEventFired"
        if method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        if method == "Runtime.exceptionThrown":
            self.errors.append(str(parameters["exceptionDetails"]))
        if method == "Log.entryAdded":
            self.errors.append(parameters["entry"]["text"])
        return message


@contextmanager
def chromium(folder: Path) -> Iterator[Page]:
    """Start the browser with its files below ``folder``, and end it."""
    with (folder / "chromium.log").open("w") as log:
        process = subprocess.Popen([*ARGUMENTS, f"--user-data-dir={folder}"], stdout=log, stderr=log)
    try:
        with connect(_address(folder, process), max_size=None, proxy=None) as connection:
            yield Page(connection)
    finally:
        process.terminate()
        process.wait(LONGEST_S)


def _address(folder: Path, process: subprocess.Popen[bytes]) -> str:
    """Where the page listens."""
    import httpx

    port, deadline = folder / "DevToolsActivePort", time.monotonic() + LONGEST_S
    while not (port.exists() and port.read_text()):
        log = (folder / "chromium.log").read_text()
        assert process.poll() is None, log
        assert time.monotonic() < deadline, log
        time.sleep(0.02)
    pages = httpx.get(f"http://127.0.0.1:{port.read_text().split()[0]}/json/list", trust_env=False).json()
    return next(one["webSocketDebuggerUrl"] for one in pages if one["type"] == "page")
