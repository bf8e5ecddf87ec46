"""Server of the emulator: binds a socket and runs the service."""

import asyncio
import socket
from collections.abc import Callable

import uvicorn

from s2v_tasks.emulator.options import EmulatorOptions
from s2v_tasks.emulator.service import BASE_PATH, Service
from s2v_tasks.emulator.wire import CuttableProtocol
from s2v_tasks.errors import UsageError


class _Server(uvicorn.Server):
    """uvicorn that calls ``listening`` when it accepts connections."""

    def __init__(self, config: uvicorn.Config, listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._listening = listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._listening()


def run(options: EmulatorOptions, ready: Callable[[str], None]) -> None:
    """Serve until a signal ends it; call ``ready`` with the base URL as soon as the server accepts calls.

    Raises:
        UsageError: The address can't be bound, or the invoice file can't be opened.
    """
    sock = _bind(options.host, options.port)
    try:
        app = Service(options).app
    except (OSError, ValueError) as cause:
        sock.close()
        raise UsageError(
            f"the emulator can't use the invoice file {options.invoice_path}: {cause}"
        ) from cause
    host = f"[{options.host}]" if ":" in options.host else options.host
    base_url = f"http://{host}:{sock.getsockname()[1]}{BASE_PATH}"
    config = uvicorn.Config(
        app,
        http=CuttableProtocol,
        loop="asyncio",
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,  # above clients' idle time: no call is sent on a closing connection
        timeout_graceful_shutdown=1,  # a stalled response does not delay the shutdown
    )
    server = _Server(config, lambda: ready(base_url))
    try:
        asyncio.run(server.serve(sockets=[sock]))
    except KeyboardInterrupt:
        pass  # Ctrl-C ends a foreground service
    finally:
        sock.close()


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio disables Nagle's algorithm only if the protocol is given; with it, a response takes 40 ms.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except OSError as cause:
        sock.close()
        raise UsageError(f"the emulator can't listen on {host}:{port}: {cause.strerror}") from cause
    return sock
