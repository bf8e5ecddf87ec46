"""A Prefect server of the command's own, for those who run none; it never outlives the command.

The command binds a loopback socket and hands it on, so requests wait until the server is up. The server's
standard input is a pipe that the command holds: when the command ends, however it ends, the pipe does, and
with it the server.
"""

import contextlib
import fcntl
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final

GRACE_S: Final = 5.0
"""For the last events that the command sent at its end."""


def ensure_prefect_api() -> None:
    """Leave ``PREFECT_API_URL`` as the user set it, by whatever way Prefect knows; else start a server.

    Call it before flows are imported.
    """
    _report_nothing()
    from prefect.settings import Settings

    if not Settings().api.url:
        os.environ["PREFECT_API_URL"] = start()
        from prefect.context import refresh_global_settings_context

        refresh_global_settings_context()


def start() -> str:
    """Start a server for as long as this process lives, and return its API's URL."""
    _report_nothing()
    # Named TCP, or the server's event loop would leave Nagle's delay on: 40 ms an answer.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        child = subprocess.Popen(  # noqa: S603  (our own module)
            [sys.executable, "-m", __name__, str(listener.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[listener.fileno()],
            start_new_session=True,  # a Ctrl-C in the terminal is for the command alone
        )
        _KEPT.append(child)
        return f"http://127.0.0.1:{listener.getsockname()[1]}/api"


def _report_nothing() -> None:
    """No usage analytics, unless the user turned them on."""
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")


_KEPT: list["subprocess.Popen[bytes]"] = []  # the pipe must stay open: it is closed by the process's end


def main() -> None:
    """The server's process."""
    import uvicorn
    from prefect.server.api.server import create_app
    from prefect.settings import Settings

    home = Path(Settings().home)
    home.mkdir(parents=True, exist_ok=True)

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            # Two servers must not bring one fresh database up to date at the same time.
            with (home / "s2v-server.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                await super().startup(sockets)

    server = Server(uvicorn.Config(create_app(), log_config=None, access_log=False))

    def leave_at_end_of_input() -> None:
        with contextlib.suppress(OSError):
            sys.stdin.buffer.read()
        server.should_exit = True
        threading.Event().wait(GRACE_S)
        os._exit(0)

    threading.Thread(target=leave_at_end_of_input, daemon=True).start()
    server.run(sockets=[socket.socket(fileno=int(sys.argv[1]))])


if __name__ == "__main__":
    main()
