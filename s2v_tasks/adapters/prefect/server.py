"""Ephemeral Prefect server, for users who run none; it never outlives the command.

The command binds a loopback socket and passes it to the server, so requests wait until the server is up. The
server's standard input is a pipe that the command holds: when the command ends, in whatever way, the pipe
closes, and the server exits.

The server stores and distributes runs, logs and events. It has no UI, scheduler or other periodic service.
"""

import contextlib
import fcntl
import gc
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, NamedTuple

from pydantic import ValidationError

from s2v_tasks.adapters.home import expanded
from s2v_tasks.adapters.http_environment import check_http_environment
from s2v_tasks.errors import PrefectUnavailable, UsageError

if TYPE_CHECKING:
    import uvicorn

GRACE_S: Final = 5.0
"""For the last events that the command sent at its end."""
READY_WITHIN_S: Final = 120.0
"""A server boots in seconds, on a busy machine in tens of them."""
_LOOPBACK: Final = ("127.0.0.1", "localhost")
_OF_OTHER_SERVERS: Final = ("PREFECT_SERVER_", "PREFECT_API_", "PREFECT_PROFILE", "PREFECT_RESULTS_")
"""Such as a password, a base path, a message broker or a database of this machine's server."""


def prestart() -> None:
    """Start the server before slow imports, so that both run at the same time.

    Only Prefect's settings show whether the user has a server, and they need its import: `ensure_prefect_api`
    uses this server or ends it.
    """
    if not os.environ.get("PREFECT_API_URL"):
        _PRESTARTED.append(start())


def ensure_prefect_api() -> None:
    """Use the API that the user configured in Prefect; else start a server and set ``PREFECT_API_URL``.

    Call it before flows are imported, and `wait_until_ready` after.
    """
    _disable_analytics()
    check_http_environment()
    configured = configured_api()
    url = _PRESTARTED.pop() if _PRESTARTED else None
    if not configured:
        os.environ["PREFECT_API_URL"] = url or start()
        from prefect.context import refresh_global_settings_context

        refresh_global_settings_context()
    elif url is not None and (pipe := _STARTED[url].child.stdin) is not None:
        pipe.close()  # a server that still boots ends at once


def configured_api() -> str | None:
    """The URL of the API that the user configured in Prefect; None: no server is named.

    Raises:
        UsageError: Prefect's settings can't be read.
    """
    from s2v_tasks.adapters.library_errors import LIBRARY_ERRORS

    # The server reports it, with what to do.
    warnings.filterwarnings("ignore", "Failed to create the Prefect home", UserWarning)
    try:
        from prefect.settings import Settings

        return Settings().api.url
    except LIBRARY_ERRORS as error:
        raise _settings_error(error) from None


def _settings_error(error: BaseException) -> UsageError:
    if "home directory" in str(error):
        return UsageError("the home folder is unknown; set HOME, or PREFECT_HOME")
    from s2v_tasks.adapters.library_errors import error_line

    what = error_line(error)
    if isinstance(error, ValidationError):  # its value may be a password
        what = ", ".join("_".join(map(str, one["loc"])) + f": {one['msg']}" for one in error.errors())
    return UsageError(f"Prefect's settings can't be read ({what}); fix the PREFECT_... variables")


def start() -> str:
    """Start a server for as long as this process lives, and return its API's URL."""
    _disable_analytics()
    # With an explicit TCP protocol, the event loop disables Nagle's algorithm: it costs 40 ms a response.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        log = _log_file()
        child = subprocess.Popen(  # noqa: S603  (our own module)
            # -P: a module of the current folder, such as secrets.py, must not replace one of a library.
            [sys.executable, "-P", "-m", __name__, str(listener.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=log,
            env=_environment(),
            cwd="/",  # the current folder may hold Prefect's files of another project, or be removed
            pass_fds=[listener.fileno()],
            start_new_session=True,  # only the command receives a Ctrl-C in the terminal
        )
        _STARTED[url] = _Server(child, log)
        _no_proxy()
        return url


def _log_file() -> IO[bytes]:
    try:
        return tempfile.TemporaryFile()  # as long as the server
    except OSError as error:
        raise UsageError(
            f"no temporary file can be made ({error.strerror}); set TMPDIR to a folder with room"
        ) from None


def _environment() -> dict[str, str]:
    """The child's environment: settings of other servers on this machine are not its own.

    Nor are those of profiles and of files in the current folder; it begins in the root folder.
    """
    own = {n: v for n, v in os.environ.items() if not n.startswith(_OF_OTHER_SERVERS)}
    own |= {"PREFECT_SERVER_ANALYTICS_ENABLED": os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"]}
    own["PREFECT_PROFILES_PATH"] = os.devnull
    if home := own.get("PREFECT_HOME"):
        own["PREFECT_HOME"] = home = os.path.abspath(expanded(home))  # noqa: PTH100  (it need not exist)
        if "?" in home:  # Prefect would paste it into a URL: see `_server`
            own["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = "sqlite+aiosqlite:///prefect.db"
    return own


def _no_proxy() -> None:
    """Requests to loopback never go through a proxy."""
    for name in ("NO_PROXY", "no_proxy"):
        hosts = [host for host in os.environ.get(name, "").split(",") if host]
        os.environ[name] = ",".join([*hosts, *(host for host in _LOOPBACK if host not in hosts)])


def wait_until_ready() -> None:
    """Wait for the command's own server and notice at once if that has ended; a user's is requested once.

    Raises:
        PrefectUnavailable: It ended, with the cause, or it does not respond.
        UsageError: The user's server can't be used as it is set up.
    """
    from s2v_tasks.adapters.prefect.api_errors import check_api, own_server_ended

    url = os.environ.get("PREFECT_API_URL")
    if url is None or url not in _STARTED:
        from prefect.settings import get_current_settings

        return check_api(str(get_current_settings().api.url))
    import httpx

    server, until_s = _STARTED[url], time.monotonic() + READY_WITHIN_S
    with httpx.Client(trust_env=False, timeout=1.0) as client:
        while time.monotonic() < until_s:
            if server.child.poll() is not None:
                raise own_server_ended(server.words, server.child.returncode)
            with contextlib.suppress(httpx.HTTPError):
                if client.get(f"{url}/health").is_success:
                    return None
            time.sleep(0.02)
    raise PrefectUnavailable(
        f"the command's own Prefect server did not respond within {READY_WITHIN_S:.0f} s;"
        " run the command again, or name a server of your own with PREFECT_API_URL"
    )


def _disable_analytics() -> None:
    """Disable usage analytics, unless the user turned them on."""
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")


class _Server(NamedTuple):
    """A server's process, and what it writes to standard error."""

    child: "subprocess.Popen[bytes]"
    log: IO[bytes]

    @property
    def words(self) -> str:
        """All that it wrote."""
        self.log.seek(0)
        return self.log.read().decode(errors="replace")


_STARTED: dict[str, _Server] = {}  # by API URL; the pipe must stay open: it is closed by the process's end
_PRESTARTED: list[str] = []  # the URL of a server that is not used yet


def main() -> None:
    """Run the server process."""
    servers: list[uvicorn.Server] = []

    def leave_at_end_of_input() -> None:
        with contextlib.suppress(OSError):
            sys.stdin.buffer.read()
        for server in servers:  # empty before the start: nothing to finish
            server.should_exit = True
            threading.Event().wait(GRACE_S)
        os._exit(0)

    threading.Thread(target=leave_at_end_of_input, daemon=True).start()
    try:
        gc.disable()  # what is imported stays, so looking for garbage in it is a tenth of the time
        server = _server()
        gc.freeze()
        gc.enable()
        servers.append(server)
        server.run(sockets=[socket.socket(fileno=int(sys.argv[1]))])
    except BaseException as error:  # noqa: BLE001  (whatever ends a server)
        # Its last words, for the command. The thread above holds the input, so Python itself can't end.
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.stderr.flush()
        os._exit(1)


def _server() -> "uvicorn.Server":
    # Prefect registers block types when a block is saved; this server's list of them is never shown.
    os.environ.setdefault("PREFECT_API_BLOCKS_REGISTER_ON_START", "false")
    import uvicorn
    from prefect.server.api.server import create_app
    from prefect.settings import Settings

    home = Path(Settings().home)
    home.mkdir(parents=True, exist_ok=True)
    os.chdir(home)

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            # Two servers must not migrate one new database at the same time.
            with (home / "s2v-server.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                await super().startup(sockets)

    app = create_app(ephemeral=True)
    return Server(uvicorn.Config(app, log_config=None, access_log=False))


if __name__ == "__main__":
    main()
