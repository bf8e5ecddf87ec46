"""What is between a program and its PostgreSQL: a proxy that falls silent, and PgBouncer."""

import asyncio
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

POOLERS_USER = "pgserver"
"""Whom PostgreSQL's wheel runs as where the tests are root: PgBouncer refuses to be root."""


class Proxy:
    """A TCP proxy to a PostgreSQL; once silent, it passes nothing on and closes nothing."""

    def __init__(self, socket_folder: str, database: str) -> None:
        self.url = ""
        self.connections = 0
        self.connected = asyncio.Event()
        self._socket = f"{socket_folder}/.s.PGSQL.5432"
        self._database = database
        self._speaks: asyncio.Event = asyncio.Event()
        self._speaks.set()

    def fall_silent(self, *, for_new_ones: bool = True) -> None:
        """From now on; ``for_new_ones`` False: connections made from now on are served."""
        self._speaks.clear()
        if not for_new_ones:
            self._speaks = asyncio.Event()
            self._speaks.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Proxy"]:
        """Serve, as ``url`` says."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"postgresql://postgres@127.0.0.1:{server.sockets[0].getsockname()[1]}/{self._database}"
        try:
            yield self
        finally:
            server.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                if task.get_name().startswith("proxy"):
                    task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asyncio.current_task().set_name("proxy")  # type: ignore[union-attr]
        self.connections += 1
        self.connected.set()
        speaks = self._speaks
        there, back = await asyncio.open_unix_connection(self._socket)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_copy(reader, back, speaks), name="proxy there")
                group.create_task(_copy(there, writer, speaks), name="proxy back")
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            back.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, speaks: asyncio.Event) -> None:
    while data := await reader.read(65536):
        await speaks.wait()
        writer.write(data)
        await writer.drain()
    writer.close()


def _target(url: str) -> tuple[str, str]:
    """The folder of the socket and the name of the database that a URL of the tests' server has."""
    parts = urlsplit(url)
    return parse_qs(parts.query)["host"][0], parts.path.strip("/")


def proxy_to(url: str) -> Proxy:
    """A proxy to the database of a URL of the tests' server."""
    return Proxy(*_target(url))


@contextmanager
def pgbouncer(url: str, folder: Path, mode: str, **options: object) -> Iterator[str]:
    """PgBouncer before the database of a URL; its URL."""
    socket_folder, database = _target(url)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "listen_addr": "127.0.0.1", "listen_port": port, "unix_socket_dir": "", "auth_type": "any",
        "pool_mode": mode, "default_pool_size": 2, **options,
    }  # fmt: skip
    lines = [f"{name} = {value}" for name, value in settings.items()]
    target = f"* = host={socket_folder} user=postgres"
    config = folder / "pgbouncer.ini"
    config.write_text("\n".join(["[databases]", target, "[pgbouncer]", *lines, ""]))
    as_user = ["-u", POOLERS_USER] if os.geteuid() == 0 else []
    with ExitStack() as stack:
        descriptor = os.open(config, os.O_RDONLY)  # its folder is the tests' own
        stack.callback(os.close, descriptor)
        log = stack.enter_context((folder / "pgbouncer.log").open("w"))
        process = subprocess.Popen(
            ["pgbouncer", *as_user, f"/dev/fd/{descriptor}"], pass_fds=[descriptor], stdout=log, stderr=log
        )
        try:
            _wait(port, process, folder / "pgbouncer.log")
            yield f"postgresql://postgres@127.0.0.1:{port}/{database}"
        finally:
            process.kill()
            process.wait()


def _wait(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(500):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        try:
            process.wait(0.02)
        except subprocess.TimeoutExpired:
            continue
        raise AssertionError(log.read_text())
    raise AssertionError("PgBouncer does not listen")
