"""Responses that break off, and the HTTP protocol class that they need.

ASGI can't close a connection without a response, so `CuttableProtocol` puts the transport into the scope.
"""

import asyncio
import socket
import struct
from typing import Any, Final, cast

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

_EXTENSION: Final = "s2v_emulator.cut"


class CuttableProtocol(H11Protocol):
    """uvicorn's pure-Python HTTP/1.1, with the connection's transport in the ASGI scope."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wrap the app for this connection."""
        super().connection_made(transport)
        app = self.app

        async def with_transport(scope: Scope, receive: Receive, send: Send) -> None:
            scope.setdefault("extensions", {})[_EXTENSION] = transport
            await app(cast("Any", scope), cast("Any", receive), cast("Any", send))

        self.app = cast("Any", with_transport)


class CutResponse(Response):
    """No response: the connection is closed, or reset if ``hard``."""

    def __init__(self, *, hard: bool) -> None:
        super().__init__()
        self._hard = hard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - nothing is sent
        """Cut the connection."""
        transport: asyncio.Transport = scope["extensions"][_EXTENSION]
        if self._hard:
            # Lingering for 0 s makes the close a TCP reset.
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        else:
            transport.close()
        await _disconnected(receive)


class TruncatedResponse(Response):
    """Declares the length of its whole body, sends half of it and closes the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send half of the body."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        half = bytes(self.body[: len(self.body) // 2])
        await send({"type": "http.response.body", "body": half, "more_body": True})
        transport: asyncio.Transport = scope["extensions"][_EXTENSION]
        transport.close()
        await _disconnected(receive)


async def _disconnected(receive: Receive) -> None:
    """Wait until the server notices; an earlier return would be reported as an app without a response."""
    while (await receive())["type"] != "http.disconnect":
        pass
