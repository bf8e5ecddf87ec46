"""Answers that break on the wire, and the HTTP protocol class that lets them.

ASGI has no way to close a connection without an answer, so `CuttableProtocol` puts one into the scope.
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
    """No answer at all: the connection is closed, or reset if ``hard``."""

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
        await _gone(receive)


class TruncatedResponse(Response):
    """Announces its whole body, sends half of it and closes the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the half answer."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        half = bytes(self.body[: len(self.body) // 2])
        await send({"type": "http.response.body", "body": half, "more_body": True})
        transport: asyncio.Transport = scope["extensions"][_EXTENSION]
        transport.close()
        await _gone(receive)


async def _gone(receive: Receive) -> None:
    """Wait until the server knows; returning earlier would make it report an app without an answer."""
    while (await receive())["type"] != "http.disconnect":
        pass
