"""Real HTTP servers on loopback that behave and misbehave as scripted."""

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class ReceivedRequest:
    """One request as it came in."""

    target: str
    headers: dict[str, str]
    connection: int

    @property
    def range(self) -> tuple[int, int] | None:
        """First and last byte of the range."""
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", ""))
        return (int(found[1]), int(found[2])) if found else None


Responder = Callable[[ReceivedRequest, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Server:
    """A raw HTTP server: ``responder`` writes what it likes; requests are recorded."""

    responder: Responder
    port: int = 0
    connections: int = 0
    open: int = 0
    busy: int = 0
    most_busy: int = 0
    requests: list[ReceivedRequest] = field(default_factory=list)

    def url(self, target: str = "/p.jpg", host: str = "images.test", scheme: str = "http") -> str:
        """Return a URL of this server, under any name."""
        return f"{scheme}://{host}:{self.port}{target}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection's requests."""
        self.connections, self.open = self.connections + 1, self.open + 1
        number = self.connections
        try:
            while not writer.is_closing():
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                pairs = (line.split(": ", 1) for line in head[1:] if line)
                request = ReceivedRequest(
                    head[0].split()[1], {name.lower(): value for name, value in pairs}, number
                )
                self.requests.append(request)
                self.busy += 1
                self.most_busy = max(self.busy, self.most_busy)
                try:
                    await self.responder(request, writer)
                finally:
                    self.busy -= 1
        except (OSError, asyncio.IncompleteReadError):
            pass  # the fetcher went away, as it may
        finally:
            self.open -= 1
            writer.close()

    async def all_closed(self) -> bool:
        """Wait a second at most for the last connection to go."""
        for _ in range(100):
            if not self.open:
                return True
            await asyncio.sleep(0.01)
        return False


@asynccontextmanager
async def serving(
    responder: Responder, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[Server]:
    server = Server(responder)
    listener = await asyncio.start_server(server.serve, host, 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        assert await server.all_closed(), "a connection was left open"


async def write(writer: asyncio.StreamWriter, status: int, body: bytes = b"", **headers: object) -> None:
    headers = {"content_length": len(body)} | headers
    lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items() if value is not None]
    writer.write(f"HTTP/1.1 {status} X\r\n{''.join(lines)}\r\n".encode() + body)
    await writer.drain()


def responding(status: int, body: bytes = b"", **headers: object) -> Responder:
    async def respond(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        await write(writer, status, body, **headers)

    return respond


def file(data: bytes) -> Responder:
    """Serve a file as good servers do, ranges included."""

    async def respond(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        start, end = request.range or (0, len(data) - 1)
        if request.range is None:
            await write(writer, 200, data)
        elif start >= len(data):
            await write(writer, 416, content_range=f"bytes */{len(data)}")
        else:
            end = min(end, len(data) - 1)
            span = f"bytes {start}-{end}/{len(data)}"
            await write(writer, 206, data[start : end + 1], content_range=span)

    return respond


def in_turn(*responders: Responder) -> Responder:
    """Serve each request in another way, the last one from then on."""
    left = list(responders)

    async def respond(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(request, writer)

    return respond


def cut_off(sent: bytes, announced: int) -> Responder:
    """Announce a length, and close the connection before its end."""

    async def respond(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        await write(writer, 200, sent, content_length=announced)
        writer.close()

    return respond


async def hang_up(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def local(host: str, port: int) -> Sequence[str]:
    return ["127.0.0.1"]


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
